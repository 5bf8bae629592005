"""Which slide comes next: in the order given, and those that another job holds again a little later."""

from __future__ import annotations

import logging
import time
from collections import deque

__all__ = ["SlideQueue"]

_LOG = logging.getLogger(__name__)
_AGAIN_S = 2.0


class SlideQueue:
    """Positions of the tasks still to do.

    Args:
        count: Number of tasks.
    """

    def __init__(self, count: int) -> None:
        self._next = deque(range(count))
        self._later: deque[tuple[float, int]] = deque()
        self._told = False

    def __len__(self) -> int:
        return len(self._next) + len(self._later)

    def take(self) -> int | None:
        """The next position, or None when all that is left is to be asked later."""
        if self._next:
            return self._next.popleft()
        if self._later and self._later[0][0] <= time.monotonic():
            return self._later.popleft()[1]
        return None

    def put_back(self, index: int) -> None:
        """Puts back a slide that was begun and not finished: it comes next."""
        self._next.appendleft(index)

    def postpone(self, index: int) -> None:
        """Puts back a slide that another live job holds: it is done there, or free when that job dies."""
        self._later.append((time.monotonic() + _AGAIN_S, index))
        if not self._told:
            self._told = True
            _LOG.info("Another job works on the same output; its slides are asked for until they are done.")

    @property
    def wait_s(self) -> float | None:
        """Seconds until :meth:`take` has something; None when it has now, or never."""
        if self._next or not self._later:
            return None
        return max(0.0, self._later[0][0] - time.monotonic())
