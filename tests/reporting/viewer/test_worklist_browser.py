"""Worklist and verdicts in a real browser: by keyboard alone, narrow and wide, two models, drawing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.prediction.answers import SURE, answer, write_answers, write_slide, write_values
from wsi_ncmi.prediction.verdicts import read_verdicts
from wsi_ncmi.prediction.worklist import Worklist
from wsi_ncmi.prediction.worklist_pages import WorklistPages
from wsi_ncmi.reporting.viewer import ViewerServer
from wsi_ncmi.tissue import read_geojson

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("view")
    answers = [SURE, *(answer(f"t{i:02} <b>", 0.5 + i / 200) for i in range(60))]
    folder = write_answers(base / "job", answers)
    write_slide(base / "slides", folder)
    other = write_answers(
        base / "other", [answer("s", 0.4, prediction="negative", decision="negative")], "second"
    )
    write_values(other, "s", ["attention"])
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[ViewerServer]:
    worklist = Worklist(folder, folder, folder.parent / "other")
    with ViewerServer(WorklistPages(worklist, folder.parent / "slides")) as running:
        running.start()
        yield running


@pytest.fixture(scope="module")
def page(server: ViewerServer) -> Iterator[Any]:
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.problems = []
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.on("request", lambda r: None if r.url.startswith((server.url, "data:", "blob:")) else page.problems.append(r.url))  # fmt: skip
        yield page
        assert page.problems == []
        browser.close()


def ready(page: Any) -> None:
    page.wait_for_selector("body[data-ready]", timeout=30_000)


def test_a_verdict_and_the_next_slide_by_keyboard_alone(
    page: Any, server: ViewerServer, folder: Path
) -> None:
    page.goto(server.url)
    ready(page)
    assert "61 of 61 slides" in page.inner_text("#count")
    page.keyboard.press("Tab")
    page.keyboard.type("t0")
    page.wait_for_function("() => document.querySelectorAll('#rows tr').length === 10")
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.textContent") == "t01 <b>"
    page.keyboard.press("Enter")
    page.wait_for_url("**/slides/t01**")
    ready(page)
    assert page.inner_text("#place-in-list") == "2 of 10"
    assert "--slides" not in page.inner_text("#notes")  # slides are given, but none of this one
    assert "doesn't list it" in page.inner_text("#notes")
    page.keyboard.press("ArrowDown")  # from agree to disagree
    page.keyboard.press("Tab")
    page.keyboard.press("n")  # the class
    page.keyboard.press("Tab")
    page.keyboard.type("a word")
    page.keyboard.press("Control+Enter")
    page.wait_for_function("() => document.getElementById('verdict-said').textContent.includes('initials')")
    page.keyboard.press("Tab")
    page.keyboard.type("AB")
    page.keyboard.press("Control+Enter")
    page.wait_for_url("**/slides/t02**")
    ready(page)
    (stored,) = read_verdicts(folder / "verdicts.csv")
    assert (stored.slide_id, stored.verdict, stored.label, stored.comment, stored.initials) == (
        "t01 <b>", "disagree", "negative", "a word", "AB",
    )  # fmt: skip
    assert page.input_value("#initials") == "AB"
    page.keyboard.press("PageUp")
    page.wait_for_url("**/slides/t01**")
    ready(page)
    assert "disagree with tumour, it is negative · AB" in page.inner_text("#verdicts")
    page.click("#list")
    page.wait_for_selector("body.worklist[data-ready]")
    assert page.input_value("#search") == "t0"


def test_two_models_show_the_same_place(page: Any, server: ViewerServer) -> None:
    page.goto(f"{server.url}slides/s/")
    ready(page)
    assert page.inner_text("#other-title") == "second"
    page.locator("#slide-other .openseadragon-canvas").focus()
    views = "[viewer, OpenSeadragon.getViewer(document.getElementById('slide-other'))]"
    for key, moved in (
        ("=", "b.getZoom(true) > 1.2 * b.getHomeZoom()"),
        ("ArrowRight", "b.getCenter(true).x > b.getHomeBounds().getCenter().x"),
    ):
        page.keyboard.down(key)
        page.wait_for_function(f"() => {{ const b = {views}[1].viewport; return {moved}; }}", timeout=10_000)
        page.keyboard.up(key)
    page.wait_for_function(
        f"() => {{ const [a, b] = {views}.map((v) => v.viewport); const [p, q] = [a.getCenter(true), b.getCenter(true)];"
        " return a.getZoom(true) > 1.2 * a.getHomeZoom() && Math.abs(a.getZoom(true) - b.getZoom(true)) < 1e-3 &&"
        " Math.hypot(p.x - q.x, p.y - q.y) < 1e-3; }",
        timeout=10_000,
    )
    page.select_option("#layer", label="evidence tumour")  # the second model has none
    page.wait_for_function(
        f"() => {views}[0].world.getItemCount() === 2 && {views}[1].world.getItemCount() === 1"
    )


def test_areas_are_drawn_by_pointer_and_by_keyboard(page: Any, server: ViewerServer, folder: Path) -> None:
    page.goto(f"{server.url}slides/s/")
    ready(page)
    path = folder / "annotations" / "s.geojson"
    screen = (
        "([x, y]) => { const p = viewer.world.getItemAt(0).imageToViewerElementCoordinates(new OpenSeadragon.Point(x, y));"
        " const b = viewer.element.getBoundingClientRect(); return [p.x + b.left, p.y + b.top]; }"
    )
    page.click("#draw-rectangle")
    for corner in ([200, 200], [600, 500]):
        page.mouse.click(*page.evaluate(screen, corner))
        page.wait_for_timeout(400)  # two clicks, not one double click
    page.wait_for_function("() => document.querySelectorAll('#areas li').length === 1")
    (area,) = read_geojson(path)
    assert area.name == "tumour"
    assert area.polygon.symmetric_difference(area.polygon.envelope).area == 0
    for found, meant in zip(area.polygon.bounds, (200, 200, 600, 500), strict=True):
        assert abs(found - meant) < 10
    page.fill("#area-class", "exclude")
    page.locator("#draw-polygon").press("Enter")
    for key in ("Enter", "ArrowRight", "Enter", "ArrowDown", "Enter"):
        page.keyboard.press(key)
        page.wait_for_timeout(700 if key.startswith("Arrow") else 50)  # the slide moves
    page.locator("#finish").press("Enter")
    page.wait_for_function("() => document.querySelectorAll('#areas li').length === 2")
    assert [(a.name, a.polygon.area > 0) for a in read_geojson(path)] == [("tumour", True), ("exclude", True)]
    page.reload()
    ready(page)
    page.locator("#areas button").first.press("Enter")
    page.wait_for_function("() => document.querySelectorAll('#areas li').length === 1")
    assert [each.name for each in read_geojson(path)] == ["exclude"]


def test_nothing_is_wider_than_a_telephone(page: Any, server: ViewerServer) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    for name in ("", "slides/s/"):
        page.goto(server.url + name)
        ready(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
        small = "[...document.querySelectorAll('a, button, select, input')].filter((e) => e.getClientRects().length && e.getBoundingClientRect().right > 391).length"  # fmt: skip
        assert page.evaluate(small) == 0, name


def test_every_control_has_a_name_and_every_text_contrast(page: Any, server: ViewerServer) -> None:
    """The rules of axe that such pages break most easily; axe itself is run by benchmarks/worklist.py."""
    unnamed = """() => [...document.querySelectorAll('a[href], button, input, select, textarea, [role=application]')]
      .filter((e) => e.getClientRects().length && !e.closest('.navigator'))
      .filter((e) => !(e.labels?.length || e.getAttribute('aria-label') || e.textContent.trim())).map((e) => e.outerHTML)"""
    pale = """() => { const light = (c) => { const v = c.match(/[\\d.]+/g).slice(0, 3).map((n) => { n /= 255; return n <= 0.04045 ? n / 12.92 : ((n + 0.055) / 1.055) ** 2.4; });
        return 0.2126 * v[0] + 0.7152 * v[1] + 0.0722 * v[2]; };
      const ground = (e) => { while (e) { const c = getComputedStyle(e).backgroundColor; if (!c.endsWith(', 0)')) return c; e = e.parentElement; } return 'rgb(255,255,255)'; };
      return [...document.querySelectorAll('h1, h2, p, dt, dd, td, th, small, label, legend, a[href], button:enabled, .tag, li')].filter((e) => e.textContent.trim() && e.getClientRects().length)
        .filter((e) => { const [a, b] = [light(getComputedStyle(e).color), light(ground(e))]; return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 4.5; }).map((e) => e.outerHTML); }"""  # fmt: skip
    for name in ("", "slides/s/"):
        page.goto(server.url + name)
        ready(page)
        assert page.evaluate(unnamed) == []
        assert page.evaluate(pale) == []
        assert page.evaluate("document.querySelectorAll('main').length") == 1
        assert page.evaluate("document.querySelectorAll('h1').length") == 1
