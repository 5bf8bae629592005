from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image, ImageDraw
from shapely import Point, unary_union

from wsi_ncmi.synthesis import CENTRES, label_of_lesion_area, write_test_slide

from .conftest import Drawn, draw

TILE_UM = 128.0


def coarse_tissue(drawn: Drawn, cell_um: float) -> np.ndarray:
    """Tissue by the outlines, rastered here with Pillow only."""
    scale = drawn.truth["slide"]["mpp"] / cell_um
    size = (
        math.ceil(drawn.truth["slide"]["width_px"] * scale),
        math.ceil(drawn.truth["slide"]["height_px"] * scale),
    )
    image = Image.new("L", size)
    for polygon in drawn.polygons("tissue"):
        ImageDraw.Draw(image).polygon([(x * scale, y * scale) for x, y in polygon.exterior.coords], fill=1)
    return np.asarray(image, dtype=bool)


def thumbnail(drawn: Drawn, size: tuple[int, int]) -> np.ndarray:
    with openslide.OpenSlide(drawn.path) as slide:
        small = slide.read_region((0, 0), slide.level_count - 1, slide.level_dimensions[-1])
    white = Image.new("RGBA", small.size, "white")
    white.alpha_composite(small)
    return np.asarray(white.convert("RGB").resize(size, Image.Resampling.BOX)).astype(int)


def test_openslide_sees_an_aperio_slide(aperio: Drawn) -> None:
    with openslide.OpenSlide(aperio.path) as slide:
        assert slide.properties["openslide.vendor"] == "aperio"
        assert (
            float(slide.properties["openslide.mpp-x"]) == float(slide.properties["openslide.mpp-y"]) == 0.46
        )
        assert slide.properties["openslide.objective-power"] == "20"
        assert [round(d) for d in slide.level_downsamples] == [1, 4, 16]
        assert slide.properties["openslide.level[0].tile-width"] == "256"


def test_openslide_sees_a_generic_bigtiff(bigtiff: Drawn) -> None:
    with openslide.OpenSlide(bigtiff.path) as slide:
        assert slide.properties["openslide.vendor"] == "generic-tiff"
        assert slide.properties["tiff.ResolutionUnit"] == "centimeter"
        assert float(slide.properties["tiff.XResolution"]) == pytest.approx(10_000 / 0.243)
        assert "openslide.objective-power" not in slide.properties
        assert [round(d) for d in slide.level_downsamples[:5]] == [1, 2, 4, 8, 16]
        assert slide.properties["openslide.level[0].tile-width"] == "512"
    with tifffile.TiffFile(bigtiff.path) as file:
        assert file.is_bigtiff
        counts = np.array(file.pages[0].databytecounts)
        assert 0 < (counts == 0).sum() < len(counts) / 2
        np.testing.assert_array_equal(np.array(file.pages[0].dataoffsets)[counts == 0], 0)


@pytest.mark.parametrize("name", ["aperio", "bigtiff"])
def test_truth_area_and_label_agree(name: str, request: pytest.FixtureRequest) -> None:
    drawn: Drawn = request.getfixturevalue(name)
    mm2 = sum(p.area for p in drawn.polygons("tumor")) * (drawn.truth["slide"]["mpp"] / 1000) ** 2
    assert drawn.truth["slide"]["tumour_mm2"] == pytest.approx(mm2, abs=1e-6)
    assert label_of_lesion_area(mm2) == drawn.plan.label == drawn.truth["slide"]["label"]
    tissue = unary_union(drawn.polygons("tissue"))
    assert all(tissue.buffer(1e-6).covers(p) for p in drawn.polygons("tumor"))
    assert all(p.is_valid for feature in ("tissue", "tumor") for p in drawn.polygons(feature))
    assert len(drawn.polygons(drawn.plan.artefact)) >= 1


@pytest.mark.parametrize("name", ["aperio", "bigtiff"])
def test_tissue_outline_is_what_was_rendered(name: str, request: pytest.FixtureRequest) -> None:
    drawn: Drawn = request.getfixturevalue(name)
    truth = coarse_tissue(drawn, 8.0)
    rgb = thumbnail(drawn, truth.shape[::-1])
    pen = Image.new("L", truth.shape[::-1])
    for polygon in drawn.polygons("pen"):
        scale = drawn.truth["slide"]["mpp"] / 8.0
        outline = [(x * scale, y * scale) for x, y in polygon.buffer(40).exterior.coords]
        ImageDraw.Draw(pen).polygon(outline, fill=1)
    seen = (rgb.max(axis=2) - rgb.min(axis=2)) > 18
    counted = np.asarray(pen) == 0
    union = ((seen | truth) & counted).sum()
    assert (seen & truth & counted).sum() / union > 0.94


@pytest.mark.parametrize("name", ["aperio", "bigtiff"])
def test_a_slide_has_a_hundred_tissue_tiles(name: str, request: pytest.FixtureRequest) -> None:
    drawn: Drawn = request.getfixturevalue(name)
    truth = coarse_tissue(drawn, 8.0)
    edge = round(TILE_UM / 8.0)
    rows, columns = (side // edge for side in truth.shape)
    shares = truth[: rows * edge, : columns * edge].reshape(rows, edge, columns, edge).mean(axis=(1, 3))
    assert (shares >= 0.25).sum() >= 100


def test_tumour_is_darker_with_larger_nuclei_than_the_tissue_around(aperio: Drawn) -> None:
    """Seen by the haematoxylin-heavy red channel: tumour nuclei are larger, so dark runs are longer."""
    tumour = max(aperio.polygons("tumor"), key=lambda p: p.area)
    tissue = max(aperio.polygons("tissue"), key=lambda p: p.area)
    obstacles = unary_union([*aperio.polygons("tumor"), *aperio.polygons("pen")])
    rng, half = np.random.default_rng(0), 128

    def opened_share(inside: object) -> float:
        from scipy.ndimage import binary_opening

        shares: list[float] = []
        left, top, right, bottom = inside.bounds  # type: ignore[attr-defined]
        while len(shares) < 12:
            x, y = rng.uniform(left, right), rng.uniform(top, bottom)
            if not inside.covers(Point(x, y).buffer(half)):  # type: ignore[attr-defined]
                continue
            with openslide.OpenSlide(aperio.path) as slide:
                region = slide.read_region((int(x) - half, int(y) - half), 0, (2 * half, 2 * half))
            dark = np.asarray(region)[..., 0] < 110
            # What survives opening by a disc of 8.3 µm is no lymphocyte.
            v, u = np.mgrid[-9:10, -9:10]
            shares.append(binary_opening(dark, u**2 + v**2 <= 81).mean())
        return float(np.mean(shares))

    assert opened_share(tumour) > 3 * opened_share(tissue.difference(obstacles.buffer(40)))


def test_the_plan_alone_decides_the_bytes(tmp_path: Path, aperio: Drawn) -> None:
    again = draw(tmp_path, centre=2, label="macro", artefact="pen")
    assert again.path.read_bytes() == aperio.path.read_bytes()
    assert again.truth == aperio.truth
    (tmp_path / "other").mkdir()
    other = draw(tmp_path / "other", centre=2, label="macro", artefact="pen", index=1)
    assert other.truth["features"] != aperio.truth["features"]


def test_the_empty_slide_is_sound_glass(tmp_path: Path) -> None:
    drawn = draw(tmp_path, centre=0, has_tissue=False)
    assert drawn.truth["features"] == []
    with openslide.OpenSlide(drawn.path) as slide:
        assert slide.properties["openslide.vendor"] == "aperio"
        pixels = np.asarray(slide.read_region((0, 0), 0, (1024, 1024)))[..., :3].astype(float)
    assert pixels.std() < 3
    assert np.abs(pixels.mean(axis=(0, 1)) - CENTRES[0].white).max() < 4


@pytest.mark.parametrize("form", ["svs", "bigtiff"])
def test_small_slides_for_other_tests(tmp_path: Path, form: str) -> None:
    path = tmp_path / "small.tif"
    truth = write_test_slide(
        path, width_px=900, height_px=700, mpp=0.5, format=form, seed=2, lesion_share=0.3
    )
    with openslide.OpenSlide(path) as slide:
        assert slide.dimensions == (900, 700)
        assert float(slide.properties["openslide.mpp-x"]) == 0.5
        assert slide.properties["openslide.vendor"] == ("aperio" if form == "svs" else "generic-tiff")
    area = 900 * 700 * 0.25e-6
    assert truth.anatomy.tissue_mm2 == pytest.approx(0.5 * area, rel=0.05)
    assert truth.anatomy.tumour_mm2 == pytest.approx(0.3 * truth.anatomy.tissue_mm2, rel=0.15)
    assert truth.label == label_of_lesion_area(truth.anatomy.tumour_mm2)


def test_small_slides_without_scale_or_tissue(tmp_path: Path) -> None:
    truth = write_test_slide(tmp_path / "a.svs", mpp=None, tissue_share=0.0)
    assert truth.anatomy.tissue == ()
    with openslide.OpenSlide(tmp_path / "a.svs") as slide:
        assert "openslide.mpp-x" not in slide.properties
    with pytest.raises(ValueError, match="tissue_share"):
        write_test_slide(tmp_path / "b.svs", tissue_share=0.9)
