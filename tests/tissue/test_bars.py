"""Bars beside bars, against the definition written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from wsi_ncmi.tissue.bars import DIRECTIONS, SIDE_UM, bar_margin, ridges


def slow(level: np.ndarray, pixel_um: tuple[float, float], half_um: float, step_px: float) -> np.ndarray:
    """The best ridge of every pixel, sample by sample."""
    plane = ndimage.uniform_filter(level, 3)
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


@pytest.mark.parametrize("pixel_um", [(8.0, 8.0), (8.0, 10.0)])
def test_ridges_are_those_of_the_definition(pixel_um: tuple[float, float]) -> None:
    level = np.random.default_rng(3).normal(0.0, 1.0, (17, 22)).astype(np.float32)
    found, direction = ridges(level, pixel_um, 40.0, 2.0)
    assert found == pytest.approx(slow(level, pixel_um, 40.0, 2.0), abs=1e-5)
    assert direction.max() < DIRECTIONS


def test_a_bar_stands_out_by_its_height_in_its_own_direction() -> None:
    level = np.zeros((120, 120), np.float32)
    level[:, 56:64] = 0.7  # upright
    found, direction = ridges(level, (4.0, 4.0), 80.0, 2.0)
    assert found[60, 60] == pytest.approx(0.7, abs=1e-5)
    assert direction[60, 60] == DIRECTIONS // 2
    assert found[60, 20] == pytest.approx(0.0, abs=1e-5)
    assert bar_margin(80.0, (4.0, 4.0)) >= (80 + SIDE_UM) / 4
