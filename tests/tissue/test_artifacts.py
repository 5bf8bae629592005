"""Pen, border and fold on drawn slides: scores of tiles against the drawing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from shapely.geometry import box, shape
from shapely.ops import unary_union

from wsi_ncmi.slides import Mpp, open_slide
from wsi_ncmi.synthesis import SlidePlan, make_slide
from wsi_ncmi.tissue import (
    ARTIFACT_KINDS,
    ArtifactConfig,
    ArtifactMap,
    TissueConfig,
    TissueMask,
    analyse_tissue,
)
from wsi_ncmi.tissue.connected_components import connected_components, without_small

LIMITS = ArtifactConfig()


@pytest.mark.parametrize(
    ("centre", "artefact"),
    [(0, "pen:red"), (1, "pen:black"), (2, "pen:blue"), (3, "pen:green"), (4, "pen:red"), (1, "border:grey"),
     (2, "border:black")],
)  # fmt: skip
def test_tiles_under_ink_and_borders_are_found(tmp_path: Path, centre: int, artefact: str) -> None:
    """Recall and precision over all tiles of 128 µm; a tile is positive from a tenth of its area on."""
    plan = SlidePlan("drawn", 7, 0, centre, "negative", artefact, True, 41)
    make_slide(plan, tmp_path, tmp_path)
    truth = json.loads((tmp_path / "drawn.geojson").read_text())
    kind = artefact.split(":")[0]
    area, tissue = (
        unary_union([shape(f["geometry"]) for f in truth["features"]
                     if f["properties"]["classification"]["name"] == name])
        for name in (kind, "tissue")
    )  # fmt: skip
    mpp = truth["slide"]["mpp"]
    with open_slide(tmp_path / plan.file_name) as slide:
        found = analyse_tissue(slide, Mpp(mpp, mpp, "table"), TissueConfig(), LIMITS)
        edge = 128.0 / mpp
        boxes = np.array([
            (x, y, x + edge, y + edge)
            for y in np.arange(0, slide.height_px - edge, edge) for x in np.arange(0, slide.width_px - edge, edge)
        ])  # fmt: skip
    scores = found.artifacts.scores_in(boxes)
    truths = np.array([box(*tile).intersection(area).area for tile in boxes]) / edge**2
    column = ARTIFACT_KINDS.index(kind)
    positive, called = truths >= 0.1, scores[:, column] >= 0.1
    # A share within 3 % of the limit is a matter of one pixel's rim: it may fall either way.
    clear = np.abs(truths - 0.1) > 0.03
    assert positive.sum() >= 8
    assert (positive & called & clear).sum() >= 0.9 * (positive & clear).sum()
    assert (positive & called & clear).sum() >= 0.9 * (called & clear).sum()
    assert np.abs(scores[:, column] - truths).mean() < 0.03
    other = [k for k in range(3) if k != column]
    assert (scores[:, other] >= 0.1).mean() < 0.02, "one artefact is not taken for another"
    # Ink and border are no tissue; what they don't hide is found.
    visible = tissue.difference(area.buffer(16.0 / mpp))
    shares = np.array([box(*tile).intersection(visible).area for tile in boxes]) / edge**2
    away = truths == 0
    assert np.abs(found.mask.fraction_in(boxes)[away] - shares[away]).mean() < 0.03


def test_a_clean_slide_has_no_artefact(tmp_path: Path) -> None:
    plan = SlidePlan("clean", 7, 0, 1, "negative", "", True, 42)
    make_slide(plan, tmp_path, tmp_path)
    with open_slide(tmp_path / plan.file_name) as slide:
        found = analyse_tissue(slide, Mpp(0.5, 0.5, "table"), TissueConfig(), LIMITS)
    assert found.artifacts.where("pen").mean() == 0
    assert found.artifacts.where("border").mean() == 0


@pytest.mark.real_data
@pytest.mark.parametrize(("detectors", "folds"), [(4, 0.0314), (5, 0.0)])
def test_the_real_slide_has_no_artefact(real_data: Path, detectors: int, folds: float) -> None:
    """Its horny layer was taken for a fold by the detectors of 0.1, which outputs of then go on with."""
    with open_slide(real_data / "slides" / "CMU-1-Small-Region.svs") as slide:
        found = analyse_tissue(
            slide, Mpp(0.499, 0.499, "vendor"), TissueConfig(), ArtifactConfig(detectors=detectors)
        )
    assert not found.artifacts.where("pen").any()
    assert not found.artifacts.where("border").any()
    assert found.artifacts.where("fold").mean() == pytest.approx(folds, abs=1e-4)


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "before", "after"), [("pen_red", 0.51, 0.84), ("pen_black", 0.36, 0.95)])
def test_real_ink_is_found(real_data: Path, name: str, before: float, after: float) -> None:
    truth = np.asarray(Image.open(real_data / "pen" / f"{name}_mask.png").convert("L")) > 0
    for detectors, least in ((4, before), (5, after)):
        with open_slide(real_data / "pen" / f"{name}.png") as slide:
            options = ArtifactConfig(detectors=detectors)
            found = analyse_tissue(slide, Mpp(16.0, 16.0, "given"), TissueConfig(), options)
        ink = found.artifacts.where("pen")
        assert (ink & truth).sum() / (ink | truth).sum() == pytest.approx(least, abs=0.02)


def test_a_black_stroke_from_the_edge_is_ink_and_a_black_strip_along_it_is_border(tmp_path: Path) -> None:
    picture = np.full((400, 300, 3), 243, np.uint8)
    picture[:300, 100:160] = 12  # a fifth of the upper side, five times as long
    picture[:, 280:] = 12
    Image.fromarray(picture).save(tmp_path / "a.png")
    with open_slide(tmp_path / "a.png") as slide:
        found = analyse_tissue(slide, Mpp(8.0, 8.0, "given"), TissueConfig(), LIMITS).artifacts
    assert found.where("pen")[:295, 105:155].all()
    assert not found.where("border")[:, :270].any()
    assert found.where("border")[:, 284:].all()
    assert not found.where("pen")[:, 284:].any()


def test_scores_and_outlines_agree() -> None:
    bits = np.zeros((20, 30), np.uint8)
    bits[2:6, 3:9] |= 1
    bits[4:12, 5:7] |= 2
    artifacts = ArtifactMap(bits, 4.0, 5.0)
    assert artifacts.kinds == ("pen", "fold", "border")
    tile = np.array([[12.0, 10.0, 36.0, 30.0], [0.0, 0.0, 6.0, 10.0], [20.0, 20.0, 28.0, 60.0]])
    np.testing.assert_allclose(artifacts.scores_in(tile)[:, 0], [1.0, 0.0, 2 * 2 * 20 / 320])
    outlines = artifacts.polygons()
    assert set(outlines) == {"pen", "fold"}
    for kind, polygons in outlines.items():
        expected = [unary_union(polygons).intersection(box(*one)).area / box(*one).area for one in tile]
        np.testing.assert_allclose(
            artifacts.scores_in(tile)[:, artifacts.kinds.index(kind)], expected, atol=1e-6
        )


def test_folds_are_scored_by_the_share_of_each_pixel() -> None:
    shares = np.zeros((10, 10), np.uint8)
    shares[2:4, 3] = 4
    shares[5, 5:8] = 16
    bits = (shares >= 8).astype(np.uint8) << 1
    artifacts = ArtifactMap(bits, 8.0, 8.0, shares, 16)
    boxes = np.array([[16.0, 8.0, 48.0, 40.0], [36.0, 40.0, 60.0, 48.0]])
    column = ARTIFACT_KINDS.index("fold")
    np.testing.assert_allclose(artifacts.scores_in(boxes)[:, column], [2 * 0.25 / 16, 2.5 / 3], rtol=1e-6)
    assert not ArtifactMap(bits, 8.0, 8.0, 0 * shares, 16).scores_in(boxes).any()


def test_bad_tiles_are_those_that_reach_a_limit() -> None:
    options = ArtifactConfig(rule="drop", pen=0.1, fold=0.2, border=0.3, blur=0.35)
    scores = np.array(
        [[0, 0, 0, 0], [0.1, 0, 0, 0], [0.09, 0.19, 0.29, 0.34], [0, 0, 0, 0.35], [np.nan] * 4], np.float16
    )
    assert options.bad(scores).tolist() == [False, True, False, True, False]
    assert options.bad(scores.astype(np.float32)).tolist() == options.bad(scores).tolist()
    with pytest.raises(ValueError, match=r"\(N, 4\)"):
        options.bad(scores[:, :3])
    with pytest.raises(ValidationError):
        ArtifactConfig(rule="burn")


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_pieces_are_those_of_a_label_image(share: float, diagonal: bool) -> None:
    from scipy import ndimage

    mask = np.random.default_rng(5).random((60, 43)) < share
    labels, count = ndimage.label(mask, np.ones((3, 3)) if diagonal else None)
    runs = connected_components(mask, diagonal=diagonal)
    assert runs.n_pieces == count
    assert sorted(runs.areas()) == sorted(np.bincount(labels.ravel())[1:])
    other = np.random.default_rng(6).random(mask.shape) < 0.5
    expected = np.bincount(labels.ravel(), other.ravel())[1:]
    assert sorted(zip(runs.areas(), runs.counts(other), strict=True)) == sorted(
        zip(np.bincount(labels.ravel())[1:], expected, strict=True)
    )
    if not diagonal:
        small = mask.copy()
        without_small(small, 4)
        np.testing.assert_array_equal(small, (np.bincount(labels.ravel()) >= 4)[labels] & mask)


def test_the_integral_needs_no_more_than_four_bytes_a_pixel() -> None:
    mask = TissueMask(np.ones((3000, 3000), bool), 1.0, 1.0, "drawn")
    import tracemalloc

    tracemalloc.start()
    assert mask.fraction_in(np.array([[0.0, 0.0, 3000.0, 3000.0]]))[0] == 1.0
    assert tracemalloc.get_traced_memory()[1] < 4.3 * 3000**2
    tracemalloc.stop()
