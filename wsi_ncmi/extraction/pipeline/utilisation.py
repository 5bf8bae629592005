"""Utilisation of the encoder threads."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Utilisation:
    """Work of a pipeline so far.

    Attributes:
        tiles: Tiles encoded.
        busy_s: Seconds in which the encoder threads encoded, summed over them.
        open_s: Seconds in which they could have, from the first tile read to the last one encoded.
    """

    tiles: int = 0
    busy_s: float = 0.0
    open_s: float = 0.0

    @property
    def idle_share(self) -> float:
        """Share of the encoder threads' time that passed without work, 0 to 1."""
        return max(0.0, 1.0 - self.busy_s / self.open_s) if self.open_s > 0 else 0.0

    def __add__(self, other: Utilisation) -> Utilisation:
        return Utilisation(self.tiles + other.tiles, self.busy_s + other.busy_s, self.open_s + other.open_s)


class UtilisationMeter:
    """Measures work and the time it could have filled. Safe to use from several threads.

    Args:
        n_encoders: Encoder threads.
    """

    def __init__(self, n_encoders: int) -> None:
        self._n_encoders = n_encoders
        self._lock = threading.Lock()
        self._tiles = 0
        self._busy_s = 0.0
        self._first: float | None = None
        self._last = 0.0

    def start(self) -> None:
        """Starts the clock: the first tiles are about to be read."""
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

    def count(self, tiles: int) -> None:
        """Counts encoded tiles."""
        with self._lock:
            self._tiles += tiles

    @property
    def utilisation(self) -> Utilisation:
        """The measurement so far."""
        with self._lock:
            open_s = 0.0 if self._first is None else (self._last - self._first) * self._n_encoders
            return Utilisation(self._tiles, self._busy_s, open_s)
