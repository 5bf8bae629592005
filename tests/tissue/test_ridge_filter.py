"""Bars beside bars, against the definition written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from wsi_ncmi.tissue.ridge_filter import (
    DIRECTIONS,
    LEVEL_STEPS,
    MAX_LEVEL,
    SIDE_UM,
    bar_margin,
    ridge_filter,
)

PRECISION = 0.003  # units of the logarithm, as the function promises


def slow(level: np.ndarray, pixel_um: tuple[float, float], half_um: float, step_px: float) -> np.ndarray:
    """The best ridge of every pixel, sample by sample."""
    plane = ndimage.uniform_filter(level / LEVEL_STEPS, 3, mode="nearest")
    steps = max(2, round(half_um / min(pixel_um) / step_px))
    along = np.arange(-steps, steps + 1) * (half_um / steps)
    height, width = level.shape

    def bar(y: int, x: int, cos: float, sin: float) -> float:
        rows = [min(max(y + round(at * sin / pixel_um[1]), 0), height - 1) for at in along]
        columns = [min(max(x + round(at * cos / pixel_um[0]), 0), width - 1) for at in along]
        return float(np.mean(plane[rows, columns]))

    best = np.full(level.shape, -np.inf)
    for y, x in np.ndindex(level.shape):
        for number in range(DIRECTIONS):
            angle = number * math.pi / DIRECTIONS
            cos, sin = math.cos(angle), math.sin(angle)
            dx, dy = round(-SIDE_UM * sin / pixel_um[0]), round(SIDE_UM * cos / pixel_um[1])
            beside = max(bar(y + dy, x + dx, cos, sin), bar(y - dy, x - dx, cos, sin))
            best[y, x] = max(best[y, x], bar(y, x, cos, sin) - beside)
    return best


def levels(shape: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(3).integers(0, MAX_LEVEL + 1, shape).astype(np.int16)


@pytest.mark.parametrize("pixel_um", [(8.0, 8.0), (8.0, 10.0)])
def test_ridges_are_those_of_the_definition(pixel_um: tuple[float, float]) -> None:
    # The middle of a larger plane, so that no bar leans on what is beyond the edge.
    margin = bar_margin(40.0, pixel_um) + 2
    level = levels((9 + 2 * margin, 13 + 2 * margin))
    inner = (slice(margin, margin + 9), slice(margin, margin + 13))
    found, direction = ridge_filter(level, pixel_um, 40.0, 2.0, inner)
    assert found == pytest.approx(slow(level, pixel_um, 40.0, 2.0)[inner], abs=PRECISION)
    assert direction.max() < DIRECTIONS


def test_a_part_has_the_ridges_of_the_whole() -> None:
    level = levels((60, 70))
    whole, directions = ridge_filter(level, (8.0, 8.0), 40.0, 2.0)
    for inner in ((slice(0, 20), slice(50, 70)), (slice(25, 31), slice(0, 70)), (slice(59, 60), slice(3, 4))):
        found, direction = ridge_filter(level, (8.0, 8.0), 40.0, 2.0, inner)
        np.testing.assert_array_equal(found, whole[inner])
        np.testing.assert_array_equal(direction, directions[inner])


def test_the_steepest_levels_do_not_overflow() -> None:
    """17 samples, the most that are taken, of the highest level beside the lowest."""
    level = np.zeros((200, 200), np.int16)
    level[:, 92:108] = MAX_LEVEL
    found, _ = ridge_filter(level, (2.5, 2.5), 60.0, 3.0)
    assert found[100, 100] == pytest.approx(MAX_LEVEL / LEVEL_STEPS, abs=PRECISION)
    assert found.min() >= -MAX_LEVEL / LEVEL_STEPS - PRECISION


def test_a_bar_stands_out_by_its_height_in_its_own_direction() -> None:
    level = np.zeros((120, 120), np.int16)
    level[:, 56:64] = round(0.7 * LEVEL_STEPS)  # upright
    found, direction = ridge_filter(level, (4.0, 4.0), 80.0, 2.0)
    assert found[60, 60] == pytest.approx(0.7, abs=PRECISION)
    assert direction[60, 60] == DIRECTIONS // 2
    assert found[60, 20] == pytest.approx(0.0, abs=PRECISION)
    assert bar_margin(80.0, (4.0, 4.0)) >= (80 + SIDE_UM) / 4
