"""Batches of tiles across slides: forming and encoding."""

from __future__ import annotations

import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.encoders import Encoder, is_out_of_memory
from wsi_ncmi.extraction.pipeline.slide_work import SlideWork

_MAX_BATCH_BYTES = 1 << 30


@dataclass(frozen=True, eq=False)
class TileChunk:
    """Tiles of one slide, as they were read.

    Attributes:
        work: The slide.
        rows: Positions in its selection, int64 (n,).
        pixels: uint8 (n, h, w, 3).
    """

    work: SlideWork
    rows: NDArray[np.int64]
    pixels: NDArray[np.uint8]

    def __getitem__(self, rows: slice) -> TileChunk:
        return TileChunk(self.work, self.rows[rows], self.pixels[rows])

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, eq=False)
class Batch:
    """Tiles that are encoded together.

    Attributes:
        chunks: The tiles, by slide; never empty.
    """

    chunks: tuple[TileChunk, ...]

    def __len__(self) -> int:
        return sum(len(chunk) for chunk in self.chunks)

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """uint8 (n, h, w, 3), the tiles of all chunks."""
        if len(self.chunks) == 1:
            return self.chunks[0].pixels
        return np.concatenate([chunk.pixels for chunk in self.chunks])

    @property
    def n_bytes(self) -> int:
        """Bytes of their pixels."""
        return sum(chunk.pixels.nbytes for chunk in self.chunks)


class TileBatcher:
    """Fills batches in the order in which tiles come, over slides. Safe to use from several threads.

    Args:
        batch_size: Tiles of a batch; fewer for tiles so large that a batch would pass 1 GiB.
    """

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._waiting: dict[tuple[int, ...], list[TileChunk]] = defaultdict(list)
        self._lock = threading.Lock()
        self._last = time.monotonic()

    def size_for(self, tile_bytes: int) -> int:
        """Tiles of a batch of tiles of that many bytes."""
        return max(1, min(self._batch_size, _MAX_BATCH_BYTES // max(tile_bytes, 1)))

    def add(self, chunk: TileChunk) -> list[Batch]:
        """Adds tiles; returns the batches that are full now."""
        with self._lock:
            self._last = time.monotonic()
            waiting = self._waiting[chunk.pixels.shape[1:]]
            waiting.append(chunk)
            size = self.size_for(chunk.pixels[0].nbytes)
            full = []
            while sum(map(len, waiting)) >= size:
                full.append(Batch(tuple(_take(waiting, size))))
            return full

    def free_slots(self, shape: tuple[int, ...]) -> int:
        """Tiles of that shape that the unfinished batch still takes; 1 to the size of a batch."""
        with self._lock:
            waiting = sum(map(len, self._waiting[shape]))
        return self.size_for(math.prod(shape)) - waiting

    def flush(self, idle_s: float) -> Batch | None:
        """The unfinished batch, if no tile has come for ``idle_s`` seconds."""
        with self._lock:
            if time.monotonic() - self._last < idle_s:
                return None
            for waiting in self._waiting.values():
                if waiting:
                    chunks = tuple(waiting)
                    waiting.clear()
                    return Batch(chunks)
            return None

    @property
    def is_empty(self) -> bool:
        """True when no tile waits."""
        with self._lock:
            return not any(self._waiting.values())


def _take(waiting: list[TileChunk], count: int) -> list[TileChunk]:
    taken = []
    while count:
        first = waiting[0]
        taken.append(first[:count])
        if len(first) > count:
            waiting[0] = first[count:]
        else:
            waiting.pop(0)
        count -= len(taken[-1])
    return taken


def begin_batch(encoder: Encoder, batch: Batch) -> Callable[[], None]:
    """Starts to encode a batch.

    A batch that fails is tried again in parts: halves where memory ran out, else slide by slide, and a slide
    that fails again tile by tile. So a passing fault costs nothing, and a slide is given up only for a tile
    of its own.

    Args:
        encoder: The encoder.
        batch: Its tiles; those of slides that were given up are left out.

    Returns:
        A function that waits until every tile's vector is stored, or its slide given up. It raises nothing.
    """
    chunks = tuple(chunk for chunk in batch.chunks if chunk.work.error is None)
    if not chunks:
        return lambda: None
    live = Batch(chunks)
    try:
        result = encoder.begin(live.pixels)
    except Exception as error:
        _retry(encoder, live, error)
        return lambda: None

    def finish() -> None:
        try:
            features = result()
        except Exception as error:
            _retry(encoder, live, error)
            return
        _store(encoder, live, features)

    return finish


def _encode(encoder: Encoder, batch: Batch) -> None:
    try:
        features = encoder.encode(batch.pixels)
    except Exception as error:
        _retry(encoder, batch, error)
        return
    _store(encoder, batch, features)


def _retry(encoder: Encoder, batch: Batch, error: Exception) -> None:
    if is_out_of_memory(error) and len(batch) > 1:
        for chunk in batch.chunks:
            chunk.work.remark("memory ran out, so batches were halved")
        for half in _halves(batch):
            _encode(encoder, half)
    elif len(batch.chunks) > 1:
        for chunk in batch.chunks:
            _encode(encoder, Batch((chunk,)))
    else:
        _tile_by_tile(encoder, batch.chunks[0])


def _tile_by_tile(encoder: Encoder, chunk: TileChunk) -> None:
    for index in range(len(chunk)):
        tile = chunk[index : index + 1]
        try:
            features = encoder.encode(tile.pixels)
        except Exception as error:
            assert chunk.work.prepared is not None
            x, y = chunk.work.prepared.selection.coords[int(tile.rows[0])].tolist()
            chunk.work.fail(error, f" (at its tile at x {x}, y {y}).")
            return
        _store(encoder, Batch((tile,)), features)
        if chunk.work.error is not None:
            return


def _halves(batch: Batch) -> tuple[Batch, Batch]:
    left: list[TileChunk] = []
    right: list[TileChunk] = []
    missing = len(batch) // 2
    for chunk in batch.chunks:
        count = min(missing, len(chunk))
        missing -= count
        if count:
            left.append(chunk[:count])
        if count < len(chunk):
            right.append(chunk[count:])
    return Batch(tuple(left)), Batch(tuple(right))


def _store(encoder: Encoder, batch: Batch, features: NDArray[np.float32]) -> None:
    start = 0
    for chunk in batch.chunks:
        try:
            chunk.work.store(chunk.rows, features[start : start + len(chunk)], encoder.info.name)
            chunk.work.remark(encoder.remark)
        except Exception as error:  # a value beyond float16 is its slide's fault alone
            chunk.work.fail(error)
        start += len(chunk)
