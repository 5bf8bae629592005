"""A slide's tiles, read, screened and normalised, within what memory allows."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.extraction.pipeline.budget import Budget
from wsi_ncmi.extraction.pipeline.work import SlideWork
from wsi_ncmi.extraction.slide import PreparedSlide
from wsi_ncmi.tiling import TileReader

__all__ = ["read_tiles_of"]

_SHARE = 4
Waiting = Callable[[], contextlib.AbstractContextManager[None]]


def read_tiles_of(
    work: SlideWork,
    prepared: PreparedSlide,
    budget: Budget,
    *,
    batch_size: int,
    first: int,
    threads: int,
    waiting: Waiting,
    limit: int,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
    """Reads the selected tiles of a slide a few at a time.

    Args:
        work: The slide, open; failed reads are counted in it.
        prepared: Its tiles.
        budget: Pays for their pixels; whoever takes tiles gives their bytes back.
        batch_size: Tiles at a time, fewer when they are so large that a few would use up the budget.
        first: Tiles that the first batch should have, 1 to ``batch_size``.
        threads: Threads to decode with.
        waiting: Context for the time in which the budget is used up.
        limit: Bytes of the budget.

    Yields:
        Positions in the selection, int64 (n,), and what the encoder is to see, uint8 (n, h, w, 3), n > 0.

    Raises:
        ClosedError: The work was given up.
    """
    edge = prepared.grid.tile_px
    tile_bytes = edge * edge * 3
    chunk = max(1, min(batch_size, limit // _SHARE // tile_bytes))
    next_size, left = min(first, chunk), len(prepared.selection)
    with TileReader(work.slide, prepared.grid, prepared.selection, threads=threads) as reader:
        work.reader_note = reader.note
        batches = reader.batches(chunk, first=next_size)
        while left and work.error is None:
            count, next_size = min(next_size, left), chunk
            budget.take(count * tile_bytes, waiting)
            handed_on = 0
            try:
                batch = next(batches)
                left -= count
                rows, pixels = _sound(work, prepared, batch.rows, batch.pixels, batch.failed)
                handed_on = pixels.nbytes
            finally:
                if handed_on != count * tile_bytes:
                    budget.give(count * tile_bytes - handed_on)
            if len(rows):
                yield rows, pixels


def _sound(
    work: SlideWork,
    prepared: PreparedSlide,
    rows: NDArray[np.int64],
    pixels: NDArray[np.uint8],
    failed: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    if failed.any():
        work.n_failed += int(failed.sum())
        rows, pixels = rows[~failed], pixels[~failed]
    if not len(rows):
        return rows, pixels
    good = prepared.artifact_filter.score(rows, pixels)
    if not good.all():
        rows, pixels = rows[good], pixels[good]
    return rows, prepared.normalise(pixels) if len(rows) else pixels
