"""Tissue and folds on one drawn slide of every centre, against the outlines that were rendered."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from shapely.geometry import box, shape
from shapely.ops import unary_union

from wsi_ncmi.slides import Mpp, open_slide
from wsi_ncmi.synthesis import CENTRES, SlidePlan, make_slide
from wsi_ncmi.tissue import ArtifactConfig, TissueConfig, analyse_tissue, segment_tissue
from wsi_ncmi.tissue.mask import raster


@pytest.fixture(scope="module", params=range(len(CENTRES)), ids=[centre.name for centre in CENTRES])
def drawn(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, list], float]:
    folder = tmp_path_factory.mktemp("centre")
    plan = SlidePlan("drawn", 3, 0, request.param, "negative", "fold", True, 77)
    make_slide(plan, folder, folder)
    truth = json.loads((folder / "drawn.geojson").read_text())
    areas: dict[str, list] = {}
    for feature in truth["features"]:
        name = feature["properties"]["classification"]["name"]
        areas.setdefault(name, []).append(shape(feature["geometry"]))
    return folder / plan.file_name, areas, truth["slide"]["mpp"]


@pytest.mark.parametrize("method", ["hed", "otsu", "threshold"])
def test_tissue_is_the_outline_that_was_drawn(
    drawn: tuple[Path, dict[str, list], float], method: str
) -> None:
    path, areas, mpp = drawn
    with open_slide(path) as slide:
        mask = segment_tissue(slide, Mpp(mpp, mpp, "table"), TissueConfig(method=method))
    truth = raster(areas["tissue"], mask.mask.shape, mask.downsample_x, mask.downsample_y)
    assert (mask.mask & truth).sum() / (mask.mask | truth).sum() >= 0.92


def test_most_tiles_on_a_fold_are_found_and_hardly_another(
    drawn: tuple[Path, dict[str, list], float],
) -> None:
    path, areas, mpp = drawn
    with open_slide(path) as slide:
        found = analyse_tissue(slide, Mpp(mpp, mpp, "table"), TissueConfig(), ArtifactConfig())
        edge = 128.0 / mpp
        boxes = np.array([
            (x, y, x + edge, y + edge)
            for y in np.arange(0, slide.height_px - edge, edge) for x in np.arange(0, slide.width_px - edge, edge)
        ])  # fmt: skip
    area = unary_union(areas["fold"])
    truths = np.array([box(*tile).intersection(area).area for tile in boxes]) / edge**2
    called = found.artifacts.scores_in(boxes)[:, 1] >= 0.1
    sure = truths >= 0.15
    assert sure.sum() >= 3
    assert (called & sure).sum() >= 0.9 * sure.sum()
    assert (called & (truths < 0.05)).sum() <= 2
