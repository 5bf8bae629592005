"""Area fractions of boxes against a slow sum over pixels, and against polygons."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wsi_ncmi.slides import Mpp
from wsi_ncmi.tissue import TissueMask

masks = arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))
downsamples = st.floats(0.5, 40.0)


def slow_fraction(mask: TissueMask, box: tuple[float, float, float, float]) -> float:
    left, top, right, bottom = box
    total = 0.0
    for row, column in zip(*np.nonzero(mask.mask), strict=True):
        x0, x1 = column * mask.downsample_x, (column + 1) * mask.downsample_x
        y0, y1 = row * mask.downsample_y, (row + 1) * mask.downsample_y
        total += max(0.0, min(right, x1) - max(left, x0)) * max(0.0, min(bottom, y1) - max(top, y0))
    return total / ((right - left) * (bottom - top))


@st.composite
def masks_with_boxes(draw: st.DrawFn) -> tuple[TissueMask, np.ndarray]:
    mask = TissueMask(draw(masks), draw(downsamples), draw(downsamples), "drawn")
    height, width = mask.mask.shape
    boxes = []
    for _ in range(draw(st.integers(1, 4))):
        x = draw(st.floats(-2.0, width + 1.0)) * mask.downsample_x
        y = draw(st.floats(-2.0, height + 1.0)) * mask.downsample_y
        w, h = draw(st.floats(0.05, width + 2.0)), draw(st.floats(0.05, height + 2.0))
        boxes.append((x, y, x + w * mask.downsample_x, y + h * mask.downsample_y))
    return mask, np.array(boxes)


@given(masks_with_boxes())
@settings(max_examples=150, deadline=None)
def test_fractions_are_the_exact_area_under_the_boxes(drawn: tuple[TissueMask, np.ndarray]) -> None:
    mask, boxes = drawn
    expected = [slow_fraction(mask, tuple(box)) for box in boxes]
    np.testing.assert_allclose(mask.fraction_in(boxes), expected, atol=1e-9)


def test_boxes_on_pixel_borders_are_exactly_full_or_empty() -> None:
    mask = TissueMask(np.array([[True, False], [False, True]]), 16.0, 16.0, "drawn")
    boxes = np.array([[0, 0, 16, 16], [16, 0, 32, 16], [0, 0, 32, 32], [8, 8, 24, 24]], float)
    assert mask.fraction_in(boxes).tolist() == [1.0, 0.0, 0.5, 0.5]


def test_no_boxes_give_no_fractions() -> None:
    mask = TissueMask(np.ones((2, 2), bool), 4.0, 4.0, "drawn")
    assert mask.fraction_in(np.empty((0, 4))).shape == (0,)


def test_area_is_in_square_millimetres_on_anisotropic_slides() -> None:
    mask = TissueMask(np.ones((500, 250), bool), 16.0, 8.0, "drawn")
    # 250 · 16 px · 0.25 µm = 1 mm wide, 500 · 8 px · 0.5 µm = 2 mm high.
    assert mask.area_mm2(Mpp(0.25, 0.5, "table")) == pytest.approx(2.0)
