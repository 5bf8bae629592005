"""Connected pieces of a mask through its runs, in a fraction of the memory of a label image.

A label image of a large slide's mask has four bytes a pixel; its runs are a few per row.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)  # arrays have no one truth value to compare by
class Runs:
    """Runs of set pixels in raster order, each with the number of its connected piece.

    Attributes:
        rows: int64 (R,).
        starts: First column, int64 (R,).
        ends: Column behind the last one, int64 (R,).
        pieces: int32 (R,), 0 to n_pieces - 1.
        n_pieces: Number of pieces.
    """

    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    pieces: NDArray[np.int32]
    n_pieces: int

    def areas(self) -> NDArray[np.float64]:
        """Pixels of each piece, float64 (n_pieces,)."""
        lengths = (self.ends - self.starts).astype(np.float64)
        return np.bincount(self.pieces, lengths, self.n_pieces).astype(np.float64)

    def bounds(self) -> tuple[NDArray[np.int64], ...]:
        """First row and row behind the last, first column and column behind the last, of each piece."""
        low = np.full((2, self.n_pieces), np.iinfo(np.int64).max)
        high = np.zeros((2, self.n_pieces), np.int64)
        for axis, (first, behind) in enumerate(((self.rows, self.rows + 1), (self.starts, self.ends))):
            np.minimum.at(low[axis], self.pieces, first)
            np.maximum.at(high[axis], self.pieces, behind)
        return low[0], high[0], low[1], high[1]

    def counts(self, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Number of pixels of each piece that are set in another mask, float64 (n_pieces,).

        Args:
            mask: bool, contiguous, of the same shape.
        """
        if not self.n_pieces:
            return np.zeros(0)
        flat = mask.reshape(-1).view(np.uint8)
        begin = self.rows * mask.shape[1] + self.starts
        borders = np.stack([begin, begin + (self.ends - self.starts)], axis=1).reshape(-1)
        # The sums from a begin to its end and from there to the next begin take turns.
        sums = np.add.reduceat(flat, borders[borders < flat.size], dtype=np.int32)[0::2]
        return np.bincount(self.pieces, sums.astype(np.float64), self.n_pieces).astype(np.float64)


def connected_components(mask: NDArray[np.bool_], *, diagonal: bool = False) -> Runs:
    """Finds the runs of a mask and joins those that share a border.

    Args:
        mask: bool (H, W).
        diagonal: Connect runs that touch only at a corner, too.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    height, width = mask.shape
    changes = np.empty((height, width + 1), bool)
    changes[:, 0] = mask[:, 0]
    np.not_equal(mask[:, 1:], mask[:, :-1], out=changes[:, 1:-1])
    changes[:, -1] = mask[:, -1]
    # Within a row changes come in pairs, so on the flat array begins and ends take turns.
    flat = np.flatnonzero(changes)
    del changes
    begin, end = flat[0::2], flat[1::2]
    rows = begin // (width + 1)
    if not len(rows):
        empty = np.empty(0, np.int64)
        return Runs(empty, empty, empty, np.empty(0, np.int32), 0)
    below = width + 1
    first = np.searchsorted(end, begin + below, side="left" if diagonal else "right").astype(np.int32)
    last = np.searchsorted(begin, end + below, side="right" if diagonal else "left").astype(np.int32)
    touching = np.maximum(last - first, 0)
    upper = np.repeat(np.arange(len(rows), dtype=np.int32), touching)
    lower = np.arange(len(upper), dtype=np.int32)
    lower -= np.repeat((np.cumsum(touching) - touching - first).astype(np.int32), touching)
    graph = coo_array((np.ones(len(upper), np.int8), (upper, lower)), shape=(len(rows), len(rows)))
    count, pieces = connected_components(graph, directed=False)
    return Runs(
        rows, begin - rows * below, end - rows * below, pieces.astype(np.int32, copy=False), int(count)
    )


def drop_small_components(
    mask: NDArray[np.bool_], runs: Runs, dropped: NDArray[np.bool_], value: bool = False
) -> None:
    """Writes ``value`` over whole pieces of a mask, in place.

    Args:
        mask: bool (H, W), the mask that the runs came from, or its complement.
        runs: Its runs.
        dropped: bool (n_pieces,).
        value: What to write.
    """
    chosen = dropped[runs.pieces]
    length = (runs.ends - runs.starts)[chosen]
    start = (runs.rows * mask.shape[1] + runs.starts)[chosen]
    where = np.repeat(start - (np.cumsum(length) - length), length) + np.arange(length.sum())
    mask.reshape(-1)[where] = value


def grown(mask: NDArray[np.bool_], steps: int, *, diagonal: bool = False) -> NDArray[np.bool_]:
    """A mask and the pixels that so many steps from pixel to pixel reach, bool (H, W).

    Args:
        mask: bool (H, W), contiguous.
        steps: Number of steps.
        diagonal: A step may go to a corner, too.
    """
    shape = cv2.MORPH_RECT if diagonal else cv2.MORPH_CROSS
    element = cv2.getStructuringElement(shape, (3, 3))
    return cv2.dilate(mask.view(np.uint8), element, iterations=steps).view(np.bool_)


def without_small(mask: NDArray[np.bool_], least_px: float, value: bool = True) -> None:
    """Removes pieces of fewer than ``least_px`` pixels, in place.

    Args:
        mask: bool (H, W), contiguous.
        least_px: Smallest piece that stays.
        value: True removes pieces of set pixels, False fills pieces of unset ones.
    """
    if least_px <= 1:
        return
    runs = connected_components(mask if value else ~mask)
    drop_small_components(mask, runs, runs.areas() < least_px, not value)
