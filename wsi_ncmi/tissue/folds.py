"""Folds of the section: ridges where the tissue lies on itself.

A fold has the hue of the tissue around it at about twice its density. What a grey-scale opening takes away is
narrower than a fold can be; where it takes away a good part of the density of dark tissue, over a long and
narrow area, there is a fold. Dense tissue is wide or round and stays. (Doubled density as the mark of a fold:
Palokangas, Selinummi & Yli-Harja 2007; adaptive thresholds on it: Kothari, Phan & Wang 2013.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wsi_ncmi.tissue.colours import Colours, strips
from wsi_ncmi.tissue.runs import drop_pieces, runs_of

__all__ = ["find_folds"]

_WIDEST_UM = 110.0
# Density over that of the tissue beside, and over the slide's median tissue.
_RIDGE, _DARK = 1.38, 1.15
_WEAK = 1.22
_LEAST_UM2 = 5_000.0
_LEAST_LENGTH_UM = 150.0
_LONGER_THAN_WIDE = 2.5


def find_folds(
    colours: Colours, tissue: NDArray[np.bool_], pixel_um: tuple[float, float]
) -> NDArray[np.bool_]:
    """Finds folds.

    Args:
        colours: Smoothed densities.
        tissue: bool (h, w): the tissue without ink and borders.
        pixel_um: Width and height of a pixel in µm.

    Returns:
        bool (h, w).
    """
    fold = np.zeros(tissue.shape, np.bool_)
    if not tissue.any():
        return fold
    strong = np.zeros(tissue.shape, np.bool_)
    typical = _median_density(colours, tissue)
    size = tuple(max(3, 2 * round(_WIDEST_UM / 2 / um) + 1) for um in reversed(pixel_um))
    for rows, padded, inner in strips(tissue.shape, halo=size[0]):
        green = colours.green[padded].astype(np.float32)
        inside = tissue[padded]
        # Glass beside a fold at the rim of the tissue is no tissue to compare it with.
        filled = np.where(inside, green, typical)
        beside = ndimage.grey_opening(filled, size=size)
        over = green / np.maximum(beside, 0.05)
        dark = inside & (green > _DARK * typical)
        fold[rows] = (dark & (over > _WEAK))[inner]
        strong[rows] = (dark & (over > _RIDGE))[inner]
    runs = runs_of(fold)
    width = tissue.shape[1]
    before = np.concatenate([[0], np.cumsum(strong.reshape(-1), dtype=np.int32)])
    seeds = before[runs.rows * width + runs.ends] - before[runs.rows * width + runs.starts]
    pixel_um2 = pixel_um[0] * pixel_um[1]
    strong_um2 = np.bincount(runs.pieces, seeds, runs.n_pieces) * pixel_um2
    area = runs.areas() * pixel_um2
    length = _lengths(runs.rows, runs.starts, runs.ends, runs.pieces, runs.n_pieces, pixel_um)
    narrow = length**2 > _LONGER_THAN_WIDE * area
    keep = (strong_um2 >= 0.3 * area) & (area >= _LEAST_UM2) & (length >= _LEAST_LENGTH_UM) & narrow
    drop_pieces(fold, runs, ~keep)
    return fold


def _median_density(colours: Colours, tissue: NDArray[np.bool_]) -> float:
    counts = np.zeros(512, np.int64)
    for rows, _, _ in strips(tissue.shape):
        values = colours.green[rows][tissue[rows]].astype(np.float32)
        counts += np.bincount(np.minimum(values * 200.0, 511.0).astype(np.int64), minlength=512)
    total = counts.cumsum()
    return (float(np.searchsorted(total, total[-1] / 2)) + 0.5) / 200.0


def _lengths(
    rows: NDArray[np.int64],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    pieces: NDArray[np.int32],
    n_pieces: int,
    pixel_um: tuple[float, float],
) -> NDArray[np.float64]:
    """Extent of each piece: the diagonal of its bounding box in µm."""
    high, wide = np.zeros(n_pieces), np.zeros(n_pieces)
    low, left = np.full(n_pieces, np.inf), np.full(n_pieces, np.inf)
    np.maximum.at(high, pieces, rows + 1.0)
    np.minimum.at(low, pieces, rows.astype(np.float64))
    np.maximum.at(wide, pieces, ends.astype(np.float64))
    np.minimum.at(left, pieces, starts.astype(np.float64))
    extent: NDArray[np.float64] = np.hypot((wide - left) * pixel_um[0], (high - low) * pixel_um[1])
    return extent
