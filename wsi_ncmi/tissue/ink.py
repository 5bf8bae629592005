"""Pen ink, told from stain by the ratios of its densities.

Blue ink absorbs red more than green, green ink absorbs green least of all, black ink absorbs all alike; no
mixture of haematoxylin and eosin does any of it. Red ink has the hue of eosin with too much blue in it, so it
is told by its distance from this slide's own stain. Ink on glass is plain and seeds a mark; over tissue it is
a mixture, is only far from the slide's own tissue, and counts where it hangs together with plain ink.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.tissue.colours import RATIO_STEP, Colours, strips
from wsi_ncmi.tissue.runs import drop_pieces, runs_of

__all__ = ["find_ink"]

_LEAST_UM2 = 6_000.0
_LEAST_SEED_UM2 = 1_500.0
# Limits of the ratios that can be stain at all, to learn the slide's own from.
_STAIN_RED, _STAIN_BLUE, _STAIN_DENSITY = 0.85, 0.75, 0.2
# How far beyond the slide's median ratio is no stain.
_FAR_RED, _FAR_BLUE = 0.16, 0.12
_USUAL_RED, _USUAL_BLUE = 0.65, 0.55


def find_ink(colours: Colours, eligible: NDArray[np.bool_], pixel_um2: float) -> NDArray[np.bool_]:
    """Finds pen marks.

    Args:
        colours: Smoothed densities.
        eligible: bool (h, w); False where there is a border or nothing can be read.
        pixel_um2: Area of a pixel.

    Returns:
        bool (h, w).
    """
    red_median, blue_median = _own_stain(colours, eligible)
    plain = np.empty(eligible.shape, np.bool_)
    ink = np.empty(eligible.shape, np.bool_)
    for rows, _, _ in strips(eligible.shape):
        green = colours.green[rows].astype(np.float32)
        red = colours.red_ratio[rows].astype(np.float32) * RATIO_STEP
        blue = colours.blue_ratio[rows].astype(np.float32) * RATIO_STEP
        part = (red > 1.12) & (green > 0.1)
        part |= (red > 0.85) & (blue > 0.8) & (green > 0.25)
        part |= (red < 0.45) & (blue > max(0.74, blue_median + 0.12)) & (green * blue > 0.35)
        part &= eligible[rows]
        plain[rows] = part
        mixed = (red > red_median + _FAR_RED) | (blue > blue_median + _FAR_BLUE)
        mixed &= (green > 0.4) & eligible[rows]
        ink[rows] = part | mixed
    runs = runs_of(ink)
    weak = (runs.counts(plain) * pixel_um2 < _LEAST_SEED_UM2) | (runs.areas() * pixel_um2 < _LEAST_UM2)
    drop_pieces(ink, runs, weak)
    return ink


def _own_stain(colours: Colours, eligible: NDArray[np.bool_]) -> tuple[float, float]:
    """Median ratios of red and blue of what can be stain."""
    counts = np.zeros((2, 256), np.int64)
    for rows, _, _ in strips(eligible.shape):
        red, blue = colours.red_ratio[rows], colours.blue_ratio[rows]
        stain = (red < _STAIN_RED / RATIO_STEP) & (blue < _STAIN_BLUE / RATIO_STEP) & eligible[rows]
        stain &= colours.green[rows] > np.float16(_STAIN_DENSITY)
        for row, plane in enumerate((red, blue)):
            counts[row] += np.bincount(plane[stain], minlength=256)
    if counts[0].sum() < 50:
        return _USUAL_RED, _USUAL_BLUE
    sums = counts.cumsum(axis=1)
    red_step, blue_step = (int(np.searchsorted(row, row[-1] / 2)) for row in sums)
    return red_step * RATIO_STEP, blue_step * RATIO_STEP
