"""Ridge filter of long narrow bars: the mean along a bar against that along its neighbours.

Bars are sums of many shifted planes, so the planes are 16-bit integers: half the memory of floats, and twice
as many at a time. A step of a level is far below the contrast of a fold.
"""

import math

import numpy as np
from numpy.typing import NDArray

DIRECTIONS = 12
SIDE_UM = 44.0
"""Distance from a bar to those beside it."""

LEVEL_STEPS = 1213
"""Steps of a level in one unit of the logarithm."""

MAX_LEVEL = 3400
"""Highest level: the sums of a bar still go into 16 bits."""

_ACROSS_PX = 3
# The mean of 3 × 3 levels is kept as their sum over 16, so that 17 of them can be added up.
_SUM_BITS, _MAX_SAMPLES = 4, 17
# The number of a direction takes the last bits of a ridge: the larger of two is then found in one step.
_NUMBER_BITS = 4
# Rows that are added up at a time: they stay in the processor's cache.
_ROWS = 96


def bar_margin(half_bar_um: float, pixel_um: tuple[float, float]) -> int:
    """Pixels that bars reach to any side."""
    return math.ceil((half_bar_um + SIDE_UM) / min(pixel_um)) + _ACROSS_PX


def ridge_filter(
    level: NDArray[np.int16],
    pixel_um: tuple[float, float],
    half_bar_um: float,
    step_px: float,
    inner: tuple[slice, slice] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Compares the mean along a bar through each pixel with the means along the bars beside it.

    Args:
        level: int16 (h, w), 0 to ``MAX_LEVEL``; its edge values continue beyond the edges.
        pixel_um: Width and height of a pixel.
        half_bar_um: Half the length of the bars.
        step_px: Distance of the samples along a bar, each the mean of 3 × 3 pixels; at most 17 are taken.
        inner: Rows and columns whose ridges are asked for; None: all.

    Returns:
        Of the best of twelve directions: the bar's mean less that of the higher neighbour, float32 of the
        asked shape, in units of the logarithm to within 0.003; and the number of the direction, uint8; number
        i points i · 15° from the x axis towards y.
    """
    rows, columns = inner or (slice(0, level.shape[0]), slice(0, level.shape[1]))
    height, width = rows.stop - rows.start, columns.stop - columns.start
    side = math.ceil(SIDE_UM / min(pixel_um))
    reach = math.ceil(half_bar_um / min(pixel_um))
    steps = min(max(2, round(half_bar_um / min(pixel_um) / step_px)), (_MAX_SAMPLES - 1) // 2)
    along = np.arange(-steps, steps + 1) * (half_bar_um / steps)
    plane = _smoothed(level, rows, columns, side + reach)
    best = np.full((height, width), np.iinfo(np.int16).min, np.int16)
    ridge = np.empty_like(best)
    total = np.empty((height + 2 * side, width + 2 * side), np.int16)

    def moved(dx: int, dy: int) -> NDArray[np.int16]:
        return total[side + dy : side + dy + height, side + dx : side + dx + width]

    for number in range(DIRECTIONS):
        x, y = math.cos(number * math.pi / DIRECTIONS), math.sin(number * math.pi / DIRECTIONS)
        corners = [(reach + round(a * x / pixel_um[0]), reach + round(a * y / pixel_um[1])) for a in along]
        parts = [plane[top : top + total.shape[0], left : left + total.shape[1]] for left, top in corners]
        for first in range(0, len(total), _ROWS):
            strip = slice(first, first + _ROWS)
            np.add(parts[0][strip], parts[1][strip], out=total[strip])
            for part in parts[2:]:
                np.add(total[strip], part[strip], out=total[strip])
        dx, dy = round(-SIDE_UM * y / pixel_um[0]), round(SIDE_UM * x / pixel_um[1])
        np.maximum(moved(dx, dy), moved(-dx, -dy), out=ridge)
        np.subtract(moved(0, 0), ridge, out=ridge)
        np.bitwise_and(ridge, -(1 << _NUMBER_BITS), out=ridge)
        np.bitwise_or(ridge, number, out=ridge)
        np.maximum(best, ridge, out=best)
    direction = (best & ((1 << _NUMBER_BITS) - 1)).astype(np.uint8)
    # The direction's number is in place of the bits that it took: half of them on average.
    scale = np.float32((1 << _SUM_BITS) / (_ACROSS_PX**2 * LEVEL_STEPS * len(along)))
    heights: NDArray[np.float32] = ((best | ((1 << _NUMBER_BITS) - 1)) - np.int16(7)) * scale
    return heights, direction


def _smoothed(level: NDArray[np.int16], rows: slice, columns: slice, margin: int) -> NDArray[np.int16]:
    """Sums of 3 × 3 levels over 16, of a part and so many pixels around."""
    halo = margin + _ACROSS_PX // 2
    around = []
    for part, side in ((rows, level.shape[0]), (columns, level.shape[1])):
        first, last = part.start - halo, part.stop + halo
        around.append((slice(max(0, first), min(side, last)), (max(0, -first), max(0, last - side))))
    wide = np.pad(level[around[0][0], around[1][0]], [missing for _, missing in around], mode="edge")
    down = wide[:-2] + wide[1:-1]
    down += wide[2:]
    across = down[:, :-2] + down[:, 1:-1]
    across += down[:, 2:]
    across >>= _SUM_BITS
    return across
