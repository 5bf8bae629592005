"""Outlines that follow the mask's pixels."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from wsi_ncmi.tissue import TissueMask, mask_polygons

masks = arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))
downsamples = st.floats(0.5, 40.0)


@given(masks, downsamples, downsamples)
@settings(max_examples=120, deadline=None)
def test_outlines_hold_every_tissue_pixel_and_no_other(pixels: np.ndarray, dx: float, dy: float) -> None:
    mask = TissueMask(pixels, dx, dy, "drawn")
    polygons = mask_polygons(mask)
    assert all(polygon.is_valid for polygon in polygons)
    assert sum(polygon.area for polygon in polygons) == pytest.approx(pixels.sum() * dx * dy)
    assert len(polygons) == ndimage.label(pixels)[1], "one polygon a piece; corners don't connect"
    rows, columns = np.indices(pixels.shape)
    inside = np.zeros(pixels.shape, bool)
    for polygon in polygons:
        inside |= shapely.contains_xy(polygon, (columns + 0.5) * dx, (rows + 0.5) * dy)
    np.testing.assert_array_equal(inside, pixels)
    areas = [polygon.area for polygon in polygons]
    assert all(a >= b * (1 - 1e-12) for a, b in itertools.pairwise(areas))


@given(masks, downsamples, st.floats(0, 5), st.floats(0, 5), st.floats(0.3, 6))
@settings(max_examples=60, deadline=None)
def test_outlines_and_fractions_agree(
    pixels: np.ndarray, down: float, x: float, y: float, side: float
) -> None:
    mask = TissueMask(pixels, down, down, "drawn")
    box = np.array([[x, y, x + side, y + side]]) * down
    cut = shapely.union_all(mask_polygons(mask)).intersection(shapely.box(*box[0]))
    assert mask.fraction_in(box)[0] == pytest.approx(cut.area / (side * down) ** 2, abs=1e-9)


def test_holes_and_islands_in_them_are_kept() -> None:
    pixels = np.zeros((11, 13), bool)
    pixels[1:10, 2:12] = True
    pixels[3:8, 4:9] = False
    pixels[5, 6] = True
    polygons = mask_polygons(TissueMask(pixels, 10.0, 20.0, "drawn"))
    assert [len(polygon.interiors) for polygon in polygons] == [1, 0]
    assert polygons[0].bounds == (20, 20, 120, 200)
    assert shapely.Polygon(polygons[0].interiors[0]).bounds == (40, 60, 90, 160)
    assert polygons[1].bounds == (60, 100, 70, 120)
    # Corners only: points on straight borders would make files a hundred times larger.
    assert len(polygons[0].exterior.coords) == 5


def test_an_empty_mask_has_no_outline() -> None:
    assert mask_polygons(TissueMask(np.zeros((4, 4), bool), 1.0, 1.0, "drawn")) == []
