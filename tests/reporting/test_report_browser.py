"""The report's figures in a real browser: what is drawn, hover values, narrow screens; no errors."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from wsi_ncmi.metrics import evaluate_predictions
from wsi_ncmi.reporting import ReportInput, write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
HOSTILE = "<img src=x onerror=alert(1)>&amp;"


@pytest.fixture(scope="module")
def opened(make, tmp_path_factory) -> Iterator[tuple[Any, list[str]]]:
    classes = (HOSTILE, "TUM", "NORM")
    frame = make.predictions(classes)
    data = ReportInput(
        title="t",
        predictions=frame,
        evaluations={"ncmi": evaluate_predictions(frame, classes, resamples=20)},
        curves=make.curves(),
    )
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(data, path)
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.goto(path.as_uri())
        yield page, errors
        browser.close()


def test_every_trace_is_drawn_and_named(opened) -> None:
    page, errors = opened
    figures = page.evaluate("JSON.parse(document.getElementById('figures').textContent)")
    for figure in figures:
        plot = page.locator(f"#plot-{figure['key']}")
        kinds = {"bar": 0, "band": 0, "curve": 0}
        for trace in figure["data"]:
            kinds["band" if trace["meta"].get("band") else "bar" if trace["type"] == "bar" else "curve"] += 1
        assert plot.locator("g .band").count() == kinds["band"]
        assert plot.locator("g .curve").count() == kinds["curve"]
        assert (plot.locator("g .column").count() > 0) == (kinds["bar"] > 0)
        named = [t["name"] for t in figure["data"] if t.get("name") and t.get("showlegend", True)]
        assert plot.locator(".legend li").all_text_contents() == (
            named if "legend" in figure["layout"] else []
        )
        assert "NaN" not in plot.inner_html()
        titles = plot.locator("text.title").all_text_contents()
        assert figure["layout"]["xaxis"]["title"]["text"] in titles
        assert figure["layout"]["yaxis"]["title"]["text"] in titles
    assert page.locator(".plot img").count() == 0
    assert errors == []


def test_a_point_tells_its_values(opened) -> None:
    page, _ = opened
    figures = page.evaluate("JSON.parse(document.getElementById('figures').textContent)")
    trace = next(f for f in figures if f["key"] == "calibration")["data"][1]
    dot = page.locator("#plot-calibration .dot").first
    dot.scroll_into_view_if_needed()
    box = dot.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    told = page.locator("#plot-calibration .tip").inner_text().splitlines()
    assert told[:2] == [trace["text"][0], "observed"]
    assert [float(each.rpartition(": ")[2]) for each in told[2:]] == [trace["x"][0], trace["y"][0]]
    page.mouse.move(2, 2)
    assert page.locator("#plot-calibration .tip").is_hidden()


def test_the_dot_stands_where_its_value_is(opened) -> None:
    page, _ = opened
    figures = page.evaluate("JSON.parse(document.getElementById('figures').textContent)")
    trace = next(f for f in figures if f["key"] == "calibration")["data"][1]
    centres = page.evaluate(
        "[...document.querySelectorAll('#plot-calibration .dot')].map((e) => [+e.getAttribute('cx'), +e.getAttribute('cy')])"
    )
    first, last = centres[0], centres[-1]
    across = (last[0] - first[0]) / (trace["x"][-1] - trace["x"][0])
    up = (last[1] - first[1]) / (trace["y"][-1] - trace["y"][0])
    assert across > 0 > up
    for (x, y), value, share in zip(centres, trace["x"], trace["y"], strict=True):
        assert x == pytest.approx(first[0] + across * (value - trace["x"][0]), abs=0.2)
        assert y == pytest.approx(first[1] + up * (share - trace["y"][0]), abs=0.2)


def test_nothing_reaches_beyond_a_narrow_screen(opened) -> None:
    page, errors = opened
    page.set_viewport_size({"width": 390, "height": 800})
    page.wait_for_function("document.querySelector('#plot-roc svg').viewBox.baseVal.width < 390")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert errors == []
