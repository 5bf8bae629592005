"""The time that a slide has taken of its own, as the supervisor sees it."""

from __future__ import annotations

import time

__all__ = ["Clock"]


class Clock:
    """Runs from the start of a slide's reading until its row, but for the time that it waits for others.

    Args:
        limit_s: Seconds that it may run; None: for ever.
    """

    def __init__(self, limit_s: float | None) -> None:
        self._left = limit_s
        self._since: float | None = None

    def start(self) -> None:
        """Lets it run; one that runs goes on."""
        if self._since is None:
            self._since = time.monotonic()

    def pause(self) -> None:
        """Stops it until it is started again."""
        if self._since is not None and self._left is not None:
            self._left -= time.monotonic() - self._since
        self._since = None

    @property
    def deadline(self) -> float | None:
        """When the time is up (monotonic seconds); None while it stands still or where nothing limits it."""
        if self._left is None or self._since is None:
            return None
        return self._since + self._left
