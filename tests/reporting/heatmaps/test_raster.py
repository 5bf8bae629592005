"""Tiles onto pixels: against counting sub-pixels one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_ncmi.reporting.heatmaps import rasterise

SUB = 8


def by_counting(
    boxes: np.ndarray, values: np.ndarray, window: tuple[float, ...], shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Every pixel in 8 × 8 points, every point asks every tile."""
    left, top, right, bottom = window
    x = left + (np.arange(shape[1] * SUB) + 0.5) * (right - left) / (shape[1] * SUB)
    y = top + (np.arange(shape[0] * SUB) + 0.5) * (bottom - top) / (shape[0] * SUB)
    total, weight = np.zeros((len(y), len(x))), np.zeros((len(y), len(x)))
    for (x0, y0, x1, y1), value in zip(boxes, values, strict=True):
        inside = ((y >= y0) & (y < y1))[:, None] & ((x >= x0) & (x < x1))[None]
        total += inside * value
        weight += inside
    total, weight = (a.reshape(shape[0], SUB, shape[1], SUB).mean((1, 3)) for a in (total, weight))
    return np.divide(total, weight, out=np.zeros(shape), where=weight > 0), np.minimum(weight, 1)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_means_and_coverage_are_those_of_counting(data: st.DataObject) -> None:
    # Edges on the sub-pixel grid, so that counting is exact; tiles overlap and leave the picture.
    h, w = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    edge = st.integers(-2 * SUB, 8 * SUB)
    count = data.draw(st.integers(0, 6))
    corners = [(data.draw(edge), data.draw(edge)) for _ in range(count)]
    size = data.draw(st.integers(1, 3 * SUB)), data.draw(st.integers(1, 3 * SUB))
    boxes = np.array([[x, y, x + size[0], y + size[1]] for x, y in corners], float).reshape(-1, 4) / SUB
    values = np.array([data.draw(st.floats(0, 1)) for _ in range(count)])
    scale = data.draw(st.sampled_from([1.0, 4.0, 0.5]))
    offset = data.draw(st.sampled_from([0.0, 3.0]))
    window = (offset, offset, offset + w * scale, offset + h * scale)
    mean, covered = rasterise(boxes * scale + offset, values, window, (h, w))
    expected = by_counting(boxes * scale + offset, values, window, (h, w))
    np.testing.assert_allclose(mean, expected[0], atol=1e-5)
    np.testing.assert_allclose(covered, expected[1], atol=1e-5)


def test_overlapping_tiles_are_averaged() -> None:
    boxes = np.array([[0, 0, 2, 1], [1, 0, 3, 1]], float)
    mean, covered = rasterise(boxes, np.array([0.0, 1.0]), (0, 0, 4, 1), (1, 4))
    np.testing.assert_allclose(mean, [[0, 0.5, 1, 0]])
    np.testing.assert_allclose(covered, [[1, 1, 1, 0]])


def test_a_window_far_from_all_tiles_is_empty() -> None:
    mean, covered = rasterise(np.array([[0.0, 0, 1, 1]]), np.ones(1), (100, 100, 101, 101), (3, 3))
    assert not mean.any()
    assert not covered.any()


def test_windows_of_a_picture_are_parts_of_it() -> None:
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 900, (300, 2))
    boxes = np.concatenate((corner, corner + 70.3), axis=1)
    values = rng.uniform(size=300)
    whole, cover = rasterise(boxes, values, (0, 0, 1000, 800), (80, 100))
    part, part_cover = rasterise(boxes, values, (300, 200, 700, 600), (40, 40))
    np.testing.assert_allclose(part, whole[20:60, 30:70], atol=1e-5)
    np.testing.assert_allclose(part_cover, cover[20:60, 30:70], atol=1e-5)


@pytest.mark.parametrize("count", [0, 1])
def test_few_tiles(count: int) -> None:
    mean, covered = rasterise(np.zeros((count, 4)), np.zeros(count), (0, 0, 1, 1), (2, 2))
    assert mean.shape == covered.shape == (2, 2)
