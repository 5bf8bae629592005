"""How busy the lanes are."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from wsi_ncmi.extraction.pipeline.config import Load

__all__ = ["Meter"]


class Meter:
    """Measures work and the time it could have filled. Safe to use from several threads.

    Args:
        lanes: How many work at a time.
    """

    def __init__(self, lanes: int) -> None:
        self._lanes = lanes
        self._lock = threading.Lock()
        self._tiles = 0
        self._busy_s = 0.0
        self._first: float | None = None
        self._last = 0.0

    def starts(self) -> None:
        """Says that the first tiles are about to be read: from here on lanes could work."""
        with self._lock:
            if self._first is None:
                self._first = self._last = time.monotonic()

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Counts the time of the block."""
        started = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self._last = time.monotonic()
                self._busy_s += self._last - started

    def counts(self, tiles: int) -> None:
        """Counts encoded tiles."""
        with self._lock:
            self._tiles += tiles

    @property
    def load(self) -> Load:
        """What was measured so far."""
        with self._lock:
            open_s = 0.0 if self._first is None else (self._last - self._first) * self._lanes
            return Load(self._tiles, self._busy_s, open_s)
