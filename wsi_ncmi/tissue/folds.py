"""Folds of the section: long, narrow ridges where the tissue lies on itself.

A fold has the hue of the tissue around it at about twice its density (Palokangas, Selinummi & Yli-Harja 2007;
Kothari, Phan & Wang 2013). Dense tissue has that too, but is seldom straight and narrow: the mean of the
density's logarithm along a bar of 160 µm, in twelve directions, is compared with the same bar moved to either
side, and the denser side must still be paler by the stated ratio.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wsi_ncmi.tissue.colours import Colours, strips
from wsi_ncmi.tissue.runs import Runs, drop_pieces, runs_of

__all__ = ["find_folds"]

_HALF_BAR_UM, _SIDE_UM, _DIRECTIONS = 80.0, 44.0, 12
# Logarithm of the density over that of the denser side: what seeds a fold, and what belongs to one.
_RIDGE, _WEAK = 0.3, 0.16
# The density over the one that a tenth of the tissue exceeds, for the same two.
_DARK, _DARKISH = 1.0, 0.75
# Glass, gaps and fat are nothing to compare with: the dense rim of a gland is no fold. They count as dense.
_GAP = 0.5
# Paler tissue counts as this: next to loose stroma everything is dense.
_PALEST = 0.6
_LEAST_STRONG = 0.15
_LEAST_UM2 = 2_500.0
_LEAST_LENGTH_UM = 120.0


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
    fold, strong = np.zeros(tissue.shape, np.bool_), np.zeros(tissue.shape, np.bool_)
    if not tissue.any():
        return fold
    typical, dense = _densities(colours, tissue)
    margin = _margin(pixel_um)
    for rows, padded, inner in strips(tissue.shape, halo=margin):
        used = np.flatnonzero(tissue[rows].any(axis=0))
        if not len(used):
            continue
        columns = slice(max(0, int(used[0]) - margin), int(used[-1]) + 1 + margin)
        inside = tissue[padded, columns]
        green = colours.green[padded, columns].astype(np.float32)
        solid = inside & (green > _GAP * typical)
        level = np.log(np.maximum(np.where(solid, green, dense), _PALEST * typical))
        ridge = _ridge(level.astype(np.float32), pixel_um)
        fold[rows, columns] = (inside & (green > _DARKISH * dense) & (ridge > _WEAK))[inner]
        strong[rows, columns] = (inside & (green > _DARK * dense) & (ridge > _RIDGE))[inner]
    strong &= fold
    runs = runs_of(fold, diagonal=True)
    share = runs.counts(strong) / np.maximum(runs.areas(), 1.0)
    area = runs.areas() * (pixel_um[0] * pixel_um[1])
    keep = (share >= _LEAST_STRONG) & (area >= _LEAST_UM2) & (_lengths(runs, pixel_um) >= _LEAST_LENGTH_UM)
    drop_pieces(fold, runs, ~keep)
    return fold


def _margin(pixel_um: tuple[float, float]) -> int:
    """Pixels that the bars reach to any side."""
    return round((_HALF_BAR_UM + _SIDE_UM) / min(pixel_um)) + 4


def _ridge(level: NDArray[np.float32], pixel_um: tuple[float, float]) -> NDArray[np.float32]:
    """Mean along the best bar less that along the higher of its two neighbours, float32 like ``level``."""
    margin = _margin(pixel_um)
    # A pixel is about as wide as a bar: three of them across.
    plane = np.pad(ndimage.uniform_filter(level, 3), margin, mode="edge")
    height, width = level.shape
    best = np.full(level.shape, -np.inf, np.float32)
    steps = max(2, round(_HALF_BAR_UM / min(pixel_um) / 2))
    along = np.arange(-steps, steps + 1) * (_HALF_BAR_UM / steps)

    def bar(angle: float, side: float) -> NDArray[np.float32]:
        total = np.zeros(level.shape, np.float32)
        for at in along:
            dx = round((at * np.cos(angle) - side * np.sin(angle)) / pixel_um[0])
            dy = round((at * np.sin(angle) + side * np.cos(angle)) / pixel_um[1])
            total += plane[margin + dy : margin + dy + height, margin + dx : margin + dx + width]
        return total

    for angle in np.arange(_DIRECTIONS) * (np.pi / _DIRECTIONS):
        beside = np.maximum(bar(angle, _SIDE_UM), bar(angle, -_SIDE_UM))
        np.maximum(best, bar(angle, 0.0) - beside, out=best)
    best /= np.float32(len(along))
    return best


def _densities(colours: Colours, tissue: NDArray[np.bool_]) -> tuple[float, float]:
    """The median density of the tissue, and the one that a tenth of it exceeds."""
    counts = np.zeros(512, np.int64)
    for rows, _, _ in strips(tissue.shape):
        values = colours.green[rows][tissue[rows]].astype(np.float32)
        counts += np.bincount(np.minimum(values * 200.0, 511.0).astype(np.int64), minlength=512)
    total = counts.cumsum()
    middle, high = (float(np.searchsorted(total, total[-1] * share)) for share in (0.5, 0.9))
    return (middle + 0.5) / 200.0, (high + 0.5) / 200.0


def _lengths(runs: Runs, pixel_um: tuple[float, float]) -> NDArray[np.float64]:
    """Extent of each piece: the diagonal of its bounding box in µm."""
    high, wide = np.zeros(runs.n_pieces), np.zeros(runs.n_pieces)
    low, left = np.full(runs.n_pieces, np.inf), np.full(runs.n_pieces, np.inf)
    np.maximum.at(high, runs.pieces, runs.rows + 1.0)
    np.minimum.at(low, runs.pieces, runs.rows.astype(np.float64))
    np.maximum.at(wide, runs.pieces, runs.ends.astype(np.float64))
    np.minimum.at(left, runs.pieces, runs.starts.astype(np.float64))
    extent: NDArray[np.float64] = np.hypot((wide - left) * pixel_um[0], (high - low) * pixel_um[1])
    return extent
