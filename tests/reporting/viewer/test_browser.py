"""The page in a real browser: pan, zoom, toggle, hover; no errors, nothing from elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import shapely

from tests.reporting.heatmaps.tiles import values
from wsi_ncmi.reporting.viewer import Shape, SlidePages, ViewerData, ViewerServer
from wsi_ncmi.slides import open_slide
from wsi_ncmi.synthesis import write_pyramid

TILES = values(8, 6, (256.0, 256.0))
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ViewerServer]:
    path = tmp_path_factory.mktemp("slide") / "s.svs"
    pixels = np.full((TILES.size_level0[1], TILES.size_level0[0], 3), 250, np.uint8)
    write_pyramid(path, pixels, 0.5)
    with open_slide(path) as slide:
        shapes = (
            Shape("tissue", [shapely.box(300, 300, 900, 900)]),
            Shape("pen", [shapely.box(0, 0, 50, 50)]),
        )
        content = ViewerData("s <b>", slide, (0.5, 0.5), TILES, shapes, {"reader": "openslide"}, ("a note",))
        with ViewerServer(SlidePages(content)) as running:
            running.start()
            yield running


class Page:
    """The page and everything that went wrong on it."""

    def __init__(self, page: Any, url: str) -> None:
        self.page, self.problems, self.foreign = page, [], []  # type: ignore[var-annotated]
        page.on("console", lambda m: self.problems.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("response", lambda r: self.problems.append(r.url) if r.status >= 400 else None)
        page.on(
            "request",
            lambda r: None if r.url.startswith((url, "data:", "blob:")) else self.foreign.append(r.url),
        )
        page.goto(url)
        page.wait_for_selector("body[data-layer]", timeout=30_000)
        self.settle()

    def settle(self) -> None:
        self.page.wait_for_function(
            "() => { const w = viewer.world; for (let i = 0; i < w.getItemCount(); i++) if (!w.getItemAt(i).getFullyLoaded()) return false;"
            " return Math.abs(viewer.viewport.getZoom() - viewer.viewport.getZoom(true)) < 1e-6; }",
            timeout=30_000,
        )
        self.page.wait_for_timeout(100)

    def screen(self, x: float, y: float) -> tuple[float, float]:
        """Where a level-0 pixel is on the screen."""
        at = self.page.evaluate(
            "([x, y]) => { const p = viewer.world.getItemAt(0).imageToViewerElementCoordinates(new OpenSeadragon.Point(x, y));"
            " const b = viewer.element.getBoundingClientRect(); return [p.x + b.left, p.y + b.top]; }", [x, y],
        )  # fmt: skip
        return at[0], at[1]

    def colour(self, x: float, y: float) -> np.ndarray:
        """What is seen there."""
        import io

        from PIL import Image

        left, top = self.screen(x, y)
        shot = self.page.screenshot(clip={"x": left - 1, "y": top - 1, "width": 3, "height": 3})
        return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"))[1, 1].astype(int)


@pytest.fixture(scope="module")
def page(server: ViewerServer) -> Iterator[Page]:
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield Page(browser.new_page(viewport={"width": 1200, "height": 800}), server.url)
        browser.close()


def middle(row: int) -> tuple[float, float]:
    x, y = TILES.coords[row]
    return float(x) + 128.0, float(y) + 128.0


def test_the_heatmap_lies_on_its_tiles_and_can_be_switched(page: Page) -> None:
    values_ = TILES.layers[0].values
    high, low = int(values_.argmax()), int(values_.argmin())
    bright, dark = page.colour(*middle(high)), page.colour(*middle(low))
    assert bright[0] > dark[0] + 60  # yellow against violet, both half over white
    page.page.locator("#opacity").fill("100")
    page.page.wait_for_timeout(200)
    np.testing.assert_allclose(page.colour(*middle(high)), [253, 231, 37], atol=12)
    page.page.uncheck("#heat-on")
    page.page.wait_for_timeout(200)
    np.testing.assert_allclose(page.colour(*middle(high)), [250, 250, 250], atol=6)
    page.page.check("#heat-on")
    page.page.locator("#opacity").fill("50")


def test_another_layer_and_scale(page: Page) -> None:
    page.page.select_option("#layer", label="evidence b")
    page.page.select_option("#scale", "absolute")
    page.page.wait_for_selector('body[data-layer="heat/2/absolute"]')
    assert "probability of the tile alone" in page.page.inner_text("#bar-title")
    page.page.select_option("#layer", label="attention")
    page.page.select_option("#scale", "percentile")
    page.page.wait_for_selector('body[data-layer="heat/0/percentile"]')
    page.settle()


def test_hover_tells_the_values_of_the_tile(page: Page) -> None:
    for row in (0, 5, len(TILES) - 1):
        page.page.mouse.move(*page.screen(*middle(row)))
        page.page.wait_for_selector(f'#values[data-tile="{row}"]')
        told = page.page.locator("#values dd").all_inner_texts()
        np.testing.assert_allclose(
            [float(t) for t in told], [layer.values[row] for layer in TILES.layers], rtol=1e-4
        )
    missing = next(
        (x, y)
        for y in range(6)
        for x in range(8)
        if not (TILES.coords == [x * 256, y * 256]).all(axis=1).any()
    )
    page.page.mouse.move(*page.screen(missing[0] * 256 + 128.0, missing[1] * 256 + 128.0))
    page.page.wait_for_selector('#values[data-tile="-1"]', state="attached")


def test_outlines_are_drawn_where_they_are_and_can_be_switched(page: Page) -> None:
    page.page.uncheck("#heat-on")
    page.page.wait_for_timeout(200)
    green = np.array([0, 140, 60])
    assert np.abs(page.colour(300, 600) - green).max() < 60
    page.page.uncheck("#shape-tissue")
    page.page.wait_for_timeout(200)
    np.testing.assert_allclose(page.colour(300, 600), [250, 250, 250], atol=6)
    page.page.check("#shape-tissue")
    page.page.check("#heat-on")


def test_zoom_and_pan(page: Page) -> None:
    before = page.page.evaluate("viewer.viewport.getZoom()")
    page.page.mouse.move(*page.screen(600, 600))
    page.page.mouse.wheel(0, -400)
    page.settle()
    assert page.page.evaluate("viewer.viewport.getZoom()") > before * 1.1
    page.page.click("#zoom-in")
    page.settle()
    left = page.page.evaluate("viewer.viewport.getCenter().x")
    x, y = page.screen(700, 600)
    page.page.mouse.move(x, y)
    page.page.mouse.down()
    page.page.mouse.move(x - 150, y, steps=6)
    page.page.mouse.up()
    page.settle()
    assert page.page.evaluate("viewer.viewport.getCenter().x") > left
    # The outline follows: it is where the slide's pixels are now.
    page.page.uncheck("#heat-on")
    page.page.wait_for_timeout(300)
    assert np.abs(page.colour(900, 600) - [0, 140, 60]).max() < 60
    page.page.check("#heat-on")
    page.page.click("#home")
    page.settle()
    assert page.page.evaluate("viewer.viewport.getZoom()") == pytest.approx(before, rel=1e-3)


def test_names_are_text_and_the_scale_bar_is_right(page: Page) -> None:
    assert page.page.inner_text("#title") == "s <b>"
    width = page.page.locator("#scalebar").bounding_box()["width"]
    microns = float(page.page.inner_text("#scalebar").split()[0])
    a, b = page.screen(0, 0), page.screen(1000, 0)
    assert width == pytest.approx(microns / 0.5 / 1000 * (b[0] - a[0]), rel=0.1)


def test_nothing_went_wrong_and_nothing_came_from_elsewhere(page: Page) -> None:
    assert page.foreign == []
    assert page.problems == []
