"""Long narrow bars over a picture: where the mean along one exceeds that along its neighbours."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["DIRECTIONS", "SIDE_UM", "bar_margin", "ridges"]

DIRECTIONS = 12
SIDE_UM = 44.0
"""Distance from a bar to those beside it."""

_ACROSS_PX = 3


def bar_margin(half_bar_um: float, pixel_um: tuple[float, float]) -> int:
    """Pixels that bars reach to any side."""
    return math.ceil((half_bar_um + SIDE_UM) / min(pixel_um)) + _ACROSS_PX


def ridges(
    level: NDArray[np.float32], pixel_um: tuple[float, float], half_bar_um: float, step_px: float
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Compares the mean along a bar through each pixel with the means along the bars beside it.

    Args:
        level: float32 (h, w); goes on beyond its edges with the values there.
        pixel_um: Width and height of a pixel.
        half_bar_um: Half the length of the bars.
        step_px: Distance of the samples along a bar, each the mean of 3 × 3 pixels.

    Returns:
        Of the best of twelve directions: the bar's mean less that of the higher neighbour, float32 (h, w),
        and the number of the direction, uint8 (h, w); number i points i · 15° from the x axis towards y.
    """
    height, width = level.shape
    side = math.ceil(SIDE_UM / min(pixel_um))
    reach = math.ceil(half_bar_um / min(pixel_um))
    plane = np.pad(ndimage.uniform_filter(level, _ACROSS_PX), side + reach, mode="edge")
    steps = max(2, round(half_bar_um / min(pixel_um) / step_px))
    along = np.arange(-steps, steps + 1) * (half_bar_um / steps)
    best = np.full(level.shape, -np.inf, np.float32)
    direction = np.zeros(level.shape, np.uint8)
    total = np.empty((height + 2 * side, width + 2 * side), np.float32)

    def moved(dx: int, dy: int) -> NDArray[np.float32]:
        return total[side + dy : side + dy + height, side + dx : side + dx + width]

    for number in range(DIRECTIONS):
        x, y = math.cos(number * math.pi / DIRECTIONS), math.sin(number * math.pi / DIRECTIONS)
        total[...] = 0.0
        for at in along:
            left, top = reach + round(at * x / pixel_um[0]), reach + round(at * y / pixel_um[1])
            total += plane[top : top + total.shape[0], left : left + total.shape[1]]
        dx, dy = round(-SIDE_UM * y / pixel_um[0]), round(SIDE_UM * x / pixel_um[1])
        ridge = moved(0, 0) - np.maximum(moved(dx, dy), moved(-dx, -dy))
        better = ridge > best
        np.copyto(best, ridge, where=better)
        direction[better] = number
    best /= np.float32(len(along))
    return best, direction
