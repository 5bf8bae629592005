"""The simulated cohort of lesions: coverage of tiles against exact areas, and what a slide holds."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pandas as pd
import pytest
from shapely import contains_xy
from shapely.geometry import Polygon

from research.lesion_cohort import TilePool, draw_slide, tumour_shares

TILE = 128 / 0.243


def test_coverage_is_the_area_within_each_tile():
    rng = np.random.default_rng(0)
    angle = np.sort(rng.uniform(0, 2 * np.pi, 40))
    radius = rng.uniform(2.2, 3.0, 40) * TILE
    outline = np.stack([5 * TILE + radius * np.cos(angle), 7 * TILE + radius * np.sin(angle)], axis=1)
    hole = np.array([(4.6, 6.6), (5.4, 6.6), (5.4, 7.4), (4.6, 7.4)]) * TILE
    lesion = Polygon(outline, [hole])
    fine = (np.arange(12 * 40) + 0.5) / 40 * TILE  # counted in 40² points a tile
    x, y = np.meshgrid(fine, fine)
    counted = contains_xy(lesion, x, y).reshape(12, 40, 12, 40).mean(axis=(1, 3))
    found = tumour_shares([outline.tolist()], [hole.tolist()])
    assert found.sum() == pytest.approx(counted.sum(), rel=0.01)
    assert found.sum() * TILE**2 == pytest.approx(lesion.area)
    expected = counted[counted > 0.01]
    assert found[found > 0.01] == pytest.approx(expected, abs=0.02)


def test_a_slide_holds_its_stage():
    rng = np.random.default_rng(0)
    normal = TilePool(rng.normal(size=(50, 3)) * 0.1)
    tumour = TilePool(rng.normal(size=(50, 3)) * 0.1 + 10)
    lesions = {"micro": [np.array([1.0, 0.5, 0.2])], "macro": [np.full(80, 1.0)]}
    counts = {}
    for stage in ("negative", "itc", "micro", "macro"):
        bag, counts[stage] = draw_slide(stage, 100, lesions, normal, tumour, rng)
        assert bag.shape == (100, 3)
        assert (bag.mean(axis=1) > 1).sum() <= counts[stage]
        strongest = np.sort(bag.mean(axis=1))[::-1]
        if stage == "micro":
            assert strongest[:4] == pytest.approx([10, 5, 2, 0], abs=0.5)
        if stage == "itc":
            assert strongest[0] < 3
    assert counts == {"negative": 0, "itc": counts["itc"], "micro": 3, "macro": 50}
    assert 1 <= counts["itc"] <= 3


@pytest.mark.real_data
def test_the_real_lesions_have_the_areas_of_the_summary(real_data):
    table = pd.read_csv(real_data / "lesions" / "lesion_summary.csv").set_index("slide")
    polygons = json.loads(gzip.decompress((real_data / "lesions" / "lesions.json.gz").read_bytes()))
    for slide in table.index[table["stage"] == "micro"][:8]:
        shares = tumour_shares(polygons[slide]["positive"], polygons[slide].get("negative", []))
        assert shares.sum() * 0.128**2 == pytest.approx(table.loc[slide, "area_mm2"], rel=0.02)
