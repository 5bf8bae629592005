"""The worker protocol: messages of a worker, and the supervisor's view of it.

A worker says ``Ready`` once, when it is set up, and ``SlotFree`` for every item that it can take. Of an item
it tells that it was ``Started`` (with ``Paused`` and ``Resumed`` where it waits for other items) and
``Finished``. ``Progress`` and ``Logged`` may come at any time; ``Stopped`` is its last message.
"""

import logging
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from wsi_ncmi.core.errors import WsiNcmiError


@dataclass(frozen=True)
class Ready:
    """A worker is set up.

    Attributes:
        info: What it tells of itself.
    """

    info: Any = None


@dataclass(frozen=True)
class SlotFree:
    """One more item can be handed over; its work starts at once."""


@dataclass(frozen=True)
class Started:
    """The work on an item starts, and with it the time that it may take."""

    index: int


@dataclass(frozen=True)
class Paused:
    """An item waits for others, which is no fault of its own."""

    index: int


@dataclass(frozen=True)
class Resumed:
    """An item that waited is worked on again."""

    index: int


@dataclass(frozen=True)
class Progress:
    """News of an item in flight, or of the worker as a whole (index -1)."""

    content: Any
    index: int = -1


@dataclass(frozen=True)
class Finished:
    """An item has its result."""

    index: int
    result: Any


@dataclass(frozen=True)
class Logged:
    """A log record, to be handled where the supervisor's log lines go."""

    record: logging.LogRecord


@dataclass(frozen=True)
class Stopped:
    """The worker can't work on any item, for example because the output is gone."""

    error: WsiNcmiError


Message = Ready | SlotFree | Started | Paused | Resumed | Progress | Finished | Logged | Stopped


class Stopwatch:
    """The time that an item has taken of its own: from its start to its result, but for pauses.

    Args:
        limit_s: Seconds that it may run; None: for ever.
    """

    def __init__(self, limit_s: float | None) -> None:
        self._left = limit_s
        self._since: float | None = None

    def start(self) -> None:
        """Lets it run; no effect on one that runs."""
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


class WorkerHandle(ABC):
    """One worker, as its supervisor sees it, wherever it runs.

    Args:
        number: Number of its slot.

    Attributes:
        number: Number of its slot.
        ready: Whether it is set up.
        info: What it told of itself when it was ready.
        has_asked: Whether it has ever asked for an item.
        capacity: Items that it asks for.
        in_flight: Positions of the items that it has, with the stopwatch of each.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.ready = self.has_asked = False
        self.info: Any = None
        self.capacity = 0
        self.in_flight: dict[int, Stopwatch] = {}

    def give(self, index: int, item: Any, timeout_s: float | None) -> None:
        """Hands over an item; a worker that has died meanwhile shows at the next poll."""
        self.in_flight[index] = Stopwatch(timeout_s)
        self.capacity -= 1
        self._send(index, item)

    @property
    def deadline(self) -> float | None:
        """When the first of the items in flight is overdue (monotonic seconds); None: never."""
        moments = [watch.deadline for watch in self.in_flight.values() if watch.deadline is not None]
        return min(moments, default=None)

    @property
    def overdue(self) -> list[int]:
        """The items in flight that have taken longer than they may."""
        now = time.monotonic()
        return [
            index
            for index, watch in self.in_flight.items()
            if watch.deadline is not None and now >= watch.deadline
        ]

    @abstractmethod
    def receive(self) -> list[Message]:
        """Its messages since the last call; called when there are some.

        Raises:
            EOFError: It is dead.
            OSError: The same.
        """

    @abstractmethod
    def end(self, *, kill: bool = False) -> str:
        """Ends it and waits until it is gone.

        Args:
            kill: At once, instead of in order.

        Returns:
            How it ended, in words.
        """

    @abstractmethod
    def _send(self, index: int, item: Any) -> None:
        """Passes an item on; never raises for a dead worker."""
