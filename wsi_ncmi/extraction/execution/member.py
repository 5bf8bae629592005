"""What a crew knows of one worker, wherever that worker runs."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any

from wsi_ncmi.extraction.pipeline import Load
from wsi_ncmi.extraction.task import SlideTask
from wsi_ncmi.parallel.clock import Clock

__all__ = ["Member"]


class Member(ABC):
    """One worker of a crew, as its supervisor sees it.

    Args:
        number: Its place in the layout.

    Attributes:
        ready: Whether the encoder is loaded.
        hunger: Slides that it asks for.
        hand: Positions of the tasks in hand, with the clock of each.
        load: What its engine said last.
        number: Its place in the layout.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.ready = False
        self.hunger = 0
        self.hand: dict[int, Clock] = {}
        self.load = Load()

    def give(self, index: int, task: SlideTask, timeout_s: float | None) -> None:
        """Hands over a task; a worker that has died meanwhile shows when it is next listened to."""
        self.hand[index] = Clock(timeout_s)
        self.hunger -= 1
        self._send(index, task)

    @property
    def deadline(self) -> float | None:
        """When the first of the tasks in hand is overdue (monotonic seconds); None: never."""
        moments = [clock.deadline for clock in self.hand.values() if clock.deadline is not None]
        return min(moments, default=None)

    @property
    def overdue(self) -> list[int]:
        """The tasks in hand that have taken longer than they may."""
        now = time.monotonic()
        return [
            index
            for index, clock in self.hand.items()
            if clock.deadline is not None and now >= clock.deadline
        ]

    @abstractmethod
    def receive(self) -> list[Any]:
        """What it has said since; called when it has news.

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
    def _send(self, index: int, task: SlideTask) -> None:
        """Passes a task on; never raises for a dead worker."""
