"""Prediction pages in a browser: the report's style, and nothing that is cut off on a small screen."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from tests.prediction.models import make_bundle, write_run
from wsi_ncmi.prediction.ood import OodFlag
from wsi_ncmi.prediction.pages import write_prediction_page, write_slide_page
from wsi_ncmi.prediction.slide_prediction import SlidePrediction

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
LONG = "invasive_carcinoma_of_no_special_type_with_lobular_features"
CLASSES = ("negative", LONG)
# Elements that reach beyond the window, but for those inside of something that scrolls.
BEYOND = """() => [...document.querySelectorAll("body *")].filter((e) => {
  const scroller = e.closest(".scroll, pre");
  return (!scroller || scroller === e) && e.getBoundingClientRect().right > window.innerWidth + 1;
}).map((e) => e.outerHTML.slice(0, 80))"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The page of all slides and that of one, of long names and long reasons."""
    out = tmp_path_factory.mktemp("pages")
    bundle = make_bundle(write_run(out / "run", classes=CLASSES))
    one = SlidePrediction(
        "TCGA-A7-A0CE-01Z-00-DX1.1b2c3d4e-5f60-7182-93a4-b5c6d7e8f901", LONG, "abstain", {"negative": 0.3, LONG: 0.7}, 0.7,
        {"negative": 0.1, LONG: 0.1}, 0.5, 42, (OodFlag("foreign_tiles", "88% of its tiles " * 5, 3.0),), 6.6, "it is unlike " * 20, "TCGA-A7-A0CE",
    )  # fmt: skip
    others = [
        replace(one, slide_id="s", decision=LONG, reason="", flags=()),
        SlidePrediction("x" * 80, reason="its header is damaged"),
    ]
    patients = pd.DataFrame(
        [{"case_id": "TCGA-A7-A0CE", "slides": 2, "answered": 1, "prediction": LONG, "decision": "abstain", "confidence": 0.7, "ood": 1, "reason": "1 of 2", "shown": "70.0 %"}]
    )  # fmt: skip
    about = {"software": "wsi-ncmi", "python": "3", "platform": "Linux", "utc": "now"}
    write_prediction_page(
        out / "all.html", [one, *others], bundle, thumbnails=out, patients=patients, provenance=about
    )
    Image.new("RGB", (766, 1100)).save(out / "map.png")
    write_slide_page(
        out / "one.html", one, bundle, {"attention, percentile scale": out / "map.png"}, back="all.html"
    )
    return [out / "all.html", out / "one.html"]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_nothing_reaches_beyond_a_screen(pages: list[Path]) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for width in (1280, 390):
            page = browser.new_page(viewport={"width": width, "height": 900})
            for path in pages:
                page.goto(path.as_uri())
                assert page.evaluate(BEYOND) == []
                assert page.evaluate("document.documentElement.scrollWidth") <= width
            # What scrolls has a shadow, which the browser draws only where there is more behind it.
            page.goto(pages[0].as_uri())
            assert "gradient" in page.evaluate(
                "getComputedStyle(document.querySelector('.scroll')).backgroundImage"
            )
        browser.close()


def test_pages_have_the_style_of_the_report(pages: list[Path]) -> None:
    from wsi_ncmi.reporting import render

    style = render._source("style.css")
    assert all(f"<style>{style}</style>" in path.read_text(encoding="utf-8") for path in pages)
