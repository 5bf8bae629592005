"""Folds of the section: long, narrow ridges where the tissue lies on itself, found in two passes.

A fold has the hue of the tissue around it at about twice its density (Palokangas, Selinummi & Yli-Harja 2007;
Kothari, Phan & Wang 2013). Dense tissue has that too, but is seldom straight and narrow. The first pass
compares, in the overview, the mean of the density's logarithm along a bar of 160 µm, in twelve directions,
with that of the same bar moved to either side, and finds the places where a fold may be. The second pass
reads those places, a few hundredths of most tissue, at about 2.7 µm, where the outline is sharp and hue can
be measured (``fold_windows``).
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import SlideReadError
from wsi_ncmi.tissue.colours import Colours, strips
from wsi_ncmi.tissue.connected_components import Runs, connected_components, drop_small_components, grown
from wsi_ncmi.tissue.fold_windows import WINDOW_MARGIN_UM, FoldWindow, Stain
from wsi_ncmi.tissue.high_res_reader import HighResReader
from wsi_ncmi.tissue.ridge_filter import bar_margin, ridge_filter

_CELL_PX = 16


def tiling_windows(mask: NDArray[np.bool_], margin: int, most_px: int) -> Iterator[tuple[slice, slice]]:
    """Parts a mask into rectangles around what is set.

    A rectangle is cut in two as long as both halves, shrunk to what they hold, are a smaller area with
    their surroundings than the whole was.

    Args:
        mask: bool (h, w).
        margin: Pixels that are read around each rectangle.
        most_px: Longest side of a rectangle.

    Yields:
        Rows and columns of rectangles, which don't overlap, each with something set in its outer rows and
        columns; in no special order within a square of ``most_px``.
    """
    height, width = mask.shape
    for top in range(0, height, most_px):
        rows = slice(top, min(top + most_px, height))
        if not mask[rows].any():
            continue
        for left in range(0, width, most_px):
            yield from _split(mask, rows, slice(left, min(left + most_px, width)), margin)


def _split(
    mask: NDArray[np.bool_], rows: slice, columns: slice, margin: int
) -> Iterator[tuple[slice, slice]]:
    whole = _shrunk(mask, rows, columns)
    if whole is None:
        return
    best, least = None, _cost(whole, margin)
    for axis in (0, 1):
        part = whole[axis]
        for cut in range(part.start + _CELL_PX, part.stop, _CELL_PX):
            halves = []
            for piece in (slice(part.start, cut), slice(cut, part.stop)):
                half = _shrunk(mask, *((piece, whole[1]) if axis == 0 else (whole[0], piece)))
                if half is not None:
                    halves.append(half)
            cost = sum(_cost(half, margin) for half in halves)
            if cost < least:
                best, least = halves, cost
    if best is None:
        yield whole
        return
    for half in best:
        yield from _split(mask, *half, margin)


def _shrunk(mask: NDArray[np.bool_], rows: slice, columns: slice) -> tuple[slice, slice] | None:
    """The part of a rectangle that holds all that is set in it; None where nothing is."""
    part = mask[rows, columns]
    down, across = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
    if not len(down):
        return None
    return (
        slice(rows.start + int(down[0]), rows.start + int(down[-1]) + 1),
        slice(columns.start + int(across[0]), columns.start + int(across[-1]) + 1),
    )


def _cost(window: tuple[slice, slice], margin: int) -> int:
    rows, columns = window
    high, wide = int(rows.stop - rows.start) + 2 * margin, int(columns.stop - columns.start) + 2 * margin
    return high * wide


SHARE_STEPS = 16
"""Steps in which the share of a pixel under a fold is stored."""

_HALF_BAR_UM, _STEP_PX = 80.0, 2.0
# First look, logarithm of the density over that of the denser side: what may be of a fold, what seeds one.
_MAYBE, _SEED = 0.12, 0.24
# Its density over the median of the tissue.
_DARKISH = 0.7
# Glass, gaps and fat are nothing to compare with: the dense rim of a gland is no fold. They count as dense.
_GAP = 0.5
# Paler tissue counts as this: next to loose stroma everything is dense.
_PALEST = 0.6
_MIN_LENGTH_UM = 120.0
_MAX_WINDOW_PX = 256
_GROW = 3
# Second look: mean ridge and difference of hue over a piece, and its area.
_MIN_MEAN, _MAX_HUE = 0.276, 0.35
# The ridge less the difference of its two sides: a layer (skin's horny layer: up to 0.17) parts two kinds of
# tissue, a fold (0.28 and more) lies within one.
_MIN_LIKE_SIDES = 0.25
_MIN_UM2 = 2_000.0


def find_folds(
    colours: Colours,
    tissue: NDArray[np.bool_],
    pixel_um: tuple[float, float],
    high_res: HighResReader,
    detectors: int,
) -> NDArray[np.uint8]:
    """Finds folds.

    Args:
        colours: Smoothed densities.
        tissue: bool (h, w): the tissue without ink and borders.
        pixel_um: Width and height of a pixel in µm.
        high_res: Reads parts of the slide once more; places that it can't read have no fold.
        detectors: Version of the detectors.

    Returns:
        uint8 (h, w): the share of each pixel under a fold, in steps of ``1 / SHARE_STEPS``.
    """
    shares = np.zeros(tissue.shape, np.uint8)
    if not tissue.any():
        return shares
    stain = Stain(*_densities(colours, tissue), gap=_GAP, palest=_PALEST)
    maybe = _first_pass(colours, tissue, pixel_um, stain)
    places: list[NDArray[np.int64]] = []
    measured: list[tuple[NDArray[np.float32], ...]] = []
    margin = int(np.ceil(WINDOW_MARGIN_UM / min(pixel_um)))
    for rows, columns in tiling_windows(maybe, margin, _MAX_WINDOW_PX):
        try:
            window = FoldWindow.read(high_res, rows, columns, margin, tissue.shape)
        except SlideReadError:
            continue
        share, *means = window.folds(colours.white, tissue, maybe, stain, pixel_um)
        shares[rows, columns] = np.rint(share * SHARE_STEPS)
        y, x = np.nonzero(shares[rows, columns])
        places.append((y + rows.start) * tissue.shape[1] + x + columns.start)
        measured.append(tuple(mean[y, x] for mean in means))
    if places:
        ridges, hues, sides = map(np.concatenate, zip(*measured, strict=True))
        if detectors == 4:
            sides = np.zeros_like(sides)
        _drop_others(shares, np.concatenate(places), ridges, hues, sides, pixel_um)
    return shares


def _first_pass(
    colours: Colours, tissue: NDArray[np.bool_], pixel_um: tuple[float, float], stain: Stain
) -> NDArray[np.bool_]:
    """Mask of the places that may be a fold, bool (h, w)."""
    maybe, seed = np.zeros(tissue.shape, np.bool_), np.zeros(tissue.shape, np.bool_)
    margin = bar_margin(_HALF_BAR_UM, pixel_um)
    for rows, padded, inner in strips(tissue.shape, halo=margin):
        used = np.flatnonzero(tissue[rows].any(axis=0))
        if not len(used):
            continue
        columns = slice(max(0, int(used[0]) - margin), int(used[-1]) + 1 + margin)
        inside = tissue[padded, columns]
        green = colours.green[padded, columns].astype(np.float32)
        level = stain.level(green, stain.solid(green, inside))
        ridge, _ = ridge_filter(level, pixel_um, _HALF_BAR_UM, _STEP_PX)
        maybe[rows, columns] = (inside & (green > _DARKISH * stain.typical) & (ridge > _MAYBE))[inner]
        seed[rows, columns] = (maybe[padded, columns] & (ridge > _SEED))[inner]
    runs = connected_components(maybe, diagonal=True)
    keep = (runs.counts(seed) > 0) & (_lengths(runs, pixel_um) >= _MIN_LENGTH_UM)
    drop_small_components(maybe, runs, ~keep)
    return grown(maybe, _GROW)


def _drop_others(
    shares: NDArray[np.uint8],
    places: NDArray[np.int64],
    ridges: NDArray[np.float32],
    hues: NDArray[np.float32],
    sides: NDArray[np.float32],
    pixel_um: tuple[float, float],
) -> None:
    """Removes pieces that are small, short, hardly denser than their sides or of another hue, in place.

    Those between unlike sides go, too. Pieces are connected through pixels that are covered by half; their
    rim goes with them.
    """
    covered = shares >= SHARE_STEPS // 2
    runs = connected_components(covered, diagonal=True)
    if runs.n_pieces:
        inside = covered.reshape(-1)[places]
        places = places[inside]
        begin = runs.rows * shares.shape[1] + runs.starts
        piece = runs.pieces[np.searchsorted(begin, places, side="right") - 1]
        weights = shares.reshape(-1)[places].astype(np.float64)
        amount = np.bincount(piece, weights, runs.n_pieces)
        ridge, hue, side = (
            np.bincount(piece, weights * values[inside], runs.n_pieces) / amount
            for values in (ridges, hues, sides)
        )
        area = amount * (pixel_um[0] * pixel_um[1] / SHARE_STEPS)
        keep = (ridge >= _MIN_MEAN) & (hue <= _MAX_HUE) & (ridge - side >= _MIN_LIKE_SIDES)
        keep &= (area >= _MIN_UM2) & (_lengths(runs, pixel_um) >= _MIN_LENGTH_UM)
        drop_small_components(covered, runs, ~keep)
    shares[~grown(covered, 1, diagonal=True)] = 0


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
    top, bottom, left, right = runs.bounds()
    extent: NDArray[np.float64] = np.hypot((right - left) * pixel_um[0], (bottom - top) * pixel_um[1])
    return extent
