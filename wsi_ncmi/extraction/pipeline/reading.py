"""Reading of a slide's tiles: decoded, filtered and normalised within a memory budget."""

import contextlib
import threading
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.extraction.pipeline.slide_work import SlideWork
from wsi_ncmi.extraction.slide import PreparedSlide
from wsi_ncmi.tiling import TileReader

__all__ = ["MemoryBudget", "ClosedError", "read_tiles_of"]


class ClosedError(Exception):
    """The budget was closed: its work is given up."""


class MemoryBudget:
    """Bytes of memory that several threads share: acquired before use, released after it.

    Args:
        limit: Bytes in use at a time. A larger request is let through when nothing else is in use, so that
            nothing waits for ever.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._closed = False
        self._changed = threading.Condition()

    @property
    def used(self) -> int:
        """Bytes in use."""
        return self._used

    def acquire(self, count: int, waiting: Callable[[], contextlib.AbstractContextManager[None]]) -> None:
        """Acquires bytes, and waits for them where needed.

        Args:
            count: Bytes.
            waiting: Makes the context that is held while waiting; not called when enough is free at once.

        Raises:
            ClosedError: The budget was closed before enough was free.
        """
        with self._changed:
            if not self._closed and not self._fits(count):
                with waiting():
                    self._changed.wait_for(lambda: self._closed or self._fits(count))
            if self._closed:
                raise ClosedError
            self._used += count

    def release(self, count: int) -> None:
        """Releases bytes."""
        with self._changed:
            self._used -= count
            self._changed.notify_all()

    def close(self) -> None:
        """Refuses every further acquisition."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _fits(self, count: int) -> bool:
        return self._used == 0 or self._used + count <= self._limit


_SHARE = 4
Waiting = Callable[[], contextlib.AbstractContextManager[None]]


def read_tiles_of(
    work: SlideWork,
    prepared: PreparedSlide,
    budget: MemoryBudget,
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
        budget: Budget of their pixels; the consumer of tiles releases their bytes.
        batch_size: Tiles at a time, fewer when they are so large that a few would use up the budget.
        first: Tiles that the first batch should have, 1 to ``batch_size``.
        threads: Threads to decode with.
        waiting: Context for the time in which the budget is used up.
        limit: Bytes of the budget.

    Yields:
        Positions in the selection, int64 (n,), and pixels for the encoder, uint8 (n, h, w, 3), n > 0.

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
            budget.acquire(count * tile_bytes, waiting)
            handed_on = 0
            try:
                batch = next(batches)
                left -= count
                rows, pixels = _usable(work, prepared, batch.rows, batch.pixels, batch.failed)
                handed_on = pixels.nbytes
            finally:
                if handed_on != count * tile_bytes:
                    budget.release(count * tile_bytes - handed_on)
            if len(rows):
                yield rows, pixels


def _usable(
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
