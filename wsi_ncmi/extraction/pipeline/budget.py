"""A bound on bytes that several threads share."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

__all__ = ["Budget", "ClosedError"]


class ClosedError(Exception):
    """The budget was closed: the work that it is for has been given up."""


class Budget:
    """Bytes that are taken before memory is used and given back after it was.

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

    def take(self, count: int, waiting: Callable[[], contextlib.AbstractContextManager[None]]) -> None:
        """Takes bytes, and waits for them where need be.

        Args:
            count: How many.
            waiting: Makes the context that is held while waiting; not called when there is room at once.

        Raises:
            ClosedError: The budget was closed before there was room.
        """
        with self._changed:
            if not self._closed and not self._has_room(count):
                with waiting():
                    self._changed.wait_for(lambda: self._closed or self._has_room(count))
            if self._closed:
                raise ClosedError
            self._used += count

    def give(self, count: int) -> None:
        """Gives bytes back."""
        with self._changed:
            self._used -= count
            self._changed.notify_all()

    def close(self) -> None:
        """Lets nobody take any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _has_room(self, count: int) -> bool:
        return self._used == 0 or self._used + count <= self._limit
