"""Rectangles that together hold all that is set in a mask, for work that needs their surroundings."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["windows_over"]

_CELL_PX = 16


def windows_over(mask: NDArray[np.bool_], margin: int, most_px: int) -> Iterator[tuple[slice, slice]]:
    """Parts a mask into rectangles around what is set.

    A rectangle is cut in two as long as both halves, shrunk to what they hold, are less to look at with
    their surroundings than the whole was.

    Args:
        mask: bool (h, w).
        margin: Pixels that are looked at around each rectangle.
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
