"""Tiles of several slides brought to batches of one size."""

from __future__ import annotations

import math
import threading
import time
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.extraction.pipeline.work import SlideWork

__all__ = ["Batch", "Packer", "Part"]

_LARGEST_BATCH_BYTES = 1 << 30


@dataclass(frozen=True, eq=False)
class Part:
    """Tiles of one slide.

    Attributes:
        work: The slide.
        rows: Positions in its selection, int64 (n,).
        pixels: uint8 (n, h, w, 3).
    """

    work: SlideWork
    rows: NDArray[np.int64]
    pixels: NDArray[np.uint8]

    def __getitem__(self, part: slice) -> Part:
        return Part(self.work, self.rows[part], self.pixels[part])

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, eq=False)
class Batch:
    """Tiles that are encoded together.

    Attributes:
        parts: Of which slides; never empty.
    """

    parts: tuple[Part, ...]

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """uint8 (n, h, w, 3), the tiles of all parts."""
        if len(self.parts) == 1:
            return self.parts[0].pixels
        return np.concatenate([part.pixels for part in self.parts])

    @property
    def n_bytes(self) -> int:
        """Bytes of their pixels."""
        return sum(part.pixels.nbytes for part in self.parts)


class Packer:
    """Fills batches in the order in which tiles come, whosever they are. Safe to use from several threads.

    Args:
        batch_size: Tiles of a batch; fewer for tiles so large that a batch would pass 1 GiB.
    """

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._waiting: dict[tuple[int, ...], list[Part]] = defaultdict(list)
        self._lock = threading.Lock()
        self._last = time.monotonic()

    def size_for(self, tile_bytes: int) -> int:
        """Tiles of a batch of tiles of that many bytes."""
        return max(1, min(self._batch_size, _LARGEST_BATCH_BYTES // max(tile_bytes, 1)))

    def add(self, part: Part) -> list[Batch]:
        """Adds tiles; gives the batches that are full now."""
        with self._lock:
            self._last = time.monotonic()
            waiting = self._waiting[part.pixels.shape[1:]]
            waiting.append(part)
            size = self.size_for(part.pixels[0].nbytes)
            full = []
            while sum(map(len, waiting)) >= size:
                full.append(Batch(tuple(_take(waiting, size))))
            return full

    def room(self, shape: tuple[int, ...]) -> int:
        """Tiles of that shape that make the batch full that is being filled; 1 to the size of a batch."""
        with self._lock:
            waiting = sum(map(len, self._waiting[shape]))
        return self.size_for(math.prod(shape)) - waiting

    def flush(self, idle_s: float) -> Batch | None:
        """The tiles that wait for others, if for ``idle_s`` seconds no other has come."""
        with self._lock:
            if time.monotonic() - self._last < idle_s:
                return None
            for waiting in self._waiting.values():
                if waiting:
                    parts = tuple(waiting)
                    waiting.clear()
                    return Batch(parts)
            return None

    @property
    def is_empty(self) -> bool:
        """Whether no tile waits."""
        with self._lock:
            return not any(self._waiting.values())


def _take(waiting: list[Part], count: int) -> list[Part]:
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
