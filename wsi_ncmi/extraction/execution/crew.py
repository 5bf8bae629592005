"""Supervised workers, each with several slides in hand; a bad slide costs itself alone."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import replace
from multiprocessing.connection import wait
from typing import Generic, TypeVar

from wsi_ncmi.core.errors import JobStoppedError, WsiNcmiError
from wsi_ncmi.encoders import EncoderConfig
from wsi_ncmi.extraction.execution.bookkeeping import Bookkeeping
from wsi_ncmi.extraction.execution.layout import Layout
from wsi_ncmi.extraction.execution.member import Member
from wsi_ncmi.extraction.execution.queue import SlideQueue
from wsi_ncmi.extraction.execution.supervised import Supervised
from wsi_ncmi.extraction.extraction import ALREADY_EXTRACTED, CLAIMED, clean_up, failed_row
from wsi_ncmi.extraction.ledger import LedgerRow
from wsi_ncmi.extraction.pipeline import Finished, Load, Paused, Resumed, SlotFree, Started, Stopped
from wsi_ncmi.extraction.task import SlideTask

__all__ = ["Crew", "LocalCrew"]

_MOST_BAD_STARTS = 3
_MOST_DEATHS = 2

Worker = TypeVar("Worker", bound=Member)


class Crew(ABC, Generic[Worker]):
    """Hands out slides when workers ask for them, so that none has slides that another could begin.

    When a worker dies, every slide that it had in hand is suspect. Suspects go back to the queue and are then
    worked on alone: the one during which a second worker dies is the culprit and fails, all others are done.

    Args:
        tasks: The job.
        options: The encoder.
        timeout_s: Seconds that a slide may take of its own; None: for ever.
        books: Takes the rows.
    """

    def __init__(
        self,
        tasks: Sequence[SlideTask],
        options: EncoderConfig,
        timeout_s: float | None,
        books: Bookkeeping,
    ) -> None:
        self._tasks, self._options = tasks, options
        self._timeout_s, self._books = timeout_s, books
        self._queue = SlideQueue(len(tasks))
        self._deaths: dict[int, int] = {}
        self._workers: list[Worker] = []
        self._earlier = Load()
        self._bad_starts = 0
        self._begun: set[int] = set()

    def run(self) -> None:
        """Returns when every task has its row."""
        while self._queue or any(worker.hand for worker in self._workers):
            self._man()
            speaking = self._listen(self._patience())
            for worker in list(self._workers):
                if worker in speaking:
                    self._hear(worker)
                elif worker.overdue:
                    self._give_up_overdue(worker)

    def stop(self) -> None:
        """Ends all workers, and what one still has in hand leaves no trace."""
        for worker in self._workers:
            worker.end(kill=bool(worker.hand) or not worker.ready)
            self._clean_up(worker)
        self._workers.clear()

    @abstractmethod
    def _places(self) -> Iterable[int]:
        """The numbers of the workers that there should be now."""

    @abstractmethod
    def _recruit(self, number: int) -> Worker:
        """Starts the worker with that number."""

    @abstractmethod
    def _listen(self, patience_s: float | None) -> Sequence[Worker]:
        """Waits for news, so long at most; gives the workers that have some."""

    def _clean_up(self, worker: Worker) -> None:
        """Removes what a worker that has ended left of the slides in its hand."""
        for index in worker.hand:
            clean_up(self._tasks[index], self._options.name)

    def _halt(self, worker: Worker, error: WsiNcmiError) -> None:
        """A worker can't go on with any slide."""
        raise error

    def _blames(self, worker: Worker) -> bool:
        """Whether the slides in a dead worker's hand may have killed it."""
        return True

    def _man(self) -> None:
        """Starts the workers that are missing and gives slides to those that ask."""
        coming = sum(not worker.hand for worker in self._workers)
        taken = {worker.number for worker in self._workers}
        for number in self._places():
            if number not in taken and coming < len(self._queue):
                self._workers.append(self._recruit(number))
                coming += 1
        for worker in sorted(self._workers, key=lambda worker: len(worker.hand)):
            while worker.hunger and self._give(worker):
                pass

    def _give(self, worker: Worker) -> bool:
        if any(index in self._deaths for index in worker.hand):
            return False  # a suspect is worked on alone
        index = self._queue.take()
        if index is None:
            return False
        if index in self._deaths and worker.hand:
            self._queue.put_back(index)
            return False
        worker.give(index, self._tasks[index], self._timeout_s)
        return True

    def _patience(self) -> float | None:
        """Seconds until something may have to be done without news."""
        now = time.monotonic()
        moments = [worker.deadline - now for worker in self._workers if worker.deadline is not None]
        later = self._queue.wait_s
        if later is not None:
            moments.append(later)
        return max(0.0, min(moments)) if moments else None

    def _hear(self, worker: Worker) -> None:
        try:
            messages = worker.receive()
        except (EOFError, OSError):
            self._has_died(worker)
            return
        for message in messages:
            if isinstance(message, Stopped):
                self._halt(worker, message.error)
                return
            self._bad_starts = 0
            match message:
                case "ready":
                    worker.ready = True
                case SlotFree():
                    worker.hunger += 1
                case Started(index) | Resumed(index):
                    worker.hand[index].start()
                case Paused(index):
                    worker.hand[index].pause()
                case Finished(index, row, load):
                    del worker.hand[index]
                    worker.load = load
                    if row.reason == CLAIMED:
                        self._queue.postpone(index)
                    else:
                        self._books.add(index, self._final_row(index, row), self._load())

    def _final_row(self, index: int, row: LedgerRow) -> LedgerRow:
        """The row of a slide whose first worker may have written it and died before it could say so."""
        if index in self._begun and row.reason == ALREADY_EXTRACTED:
            return replace(row, status="done", reason="its worker was lost when it had written it")
        return row

    def _load(self) -> Load:
        return sum((worker.load for worker in self._workers), self._earlier)

    def _give_up_overdue(self, worker: Worker) -> None:
        """Kills its process, for nothing less ends a hung read; what else it had in hand is begun anew."""
        overdue = worker.overdue
        self._lose(worker, kill=True)
        for index in worker.hand:
            if index not in overdue:
                self._queue.put_back(index)
        for index in overdue:
            self._fail(
                index,
                f"took longer than {self._timeout_s:g} s and was given up; check the slide or raise "
                "--timeout-per-slide",
                self._timeout_s or 0.0,
            )

    def _has_died(self, worker: Worker) -> None:
        how = self._lose(worker, kill=False)
        if not self._blames(worker):
            self._put_back(worker)
            return
        if not worker.hand:
            self._bad_starts += not worker.ready
            if self._bad_starts >= _MOST_BAD_STARTS:
                raise JobStoppedError(
                    f"{_MOST_BAD_STARTS} worker processes in a row died before they could start ({how}); "
                    "most often memory is short: use fewer workers (--workers)."
                )
            return
        for index in worker.hand:
            self._deaths[index] = self._deaths.get(index, 0) + 1
            if self._deaths[index] < _MOST_DEATHS:
                self._queue.put_back(index)
            else:
                self._fail(
                    index,
                    f"its worker process died ({how}), and another one when it was tried alone; a kill by "
                    "the system mostly means too little memory: use fewer workers (--workers)",
                )

    def _put_back(self, worker: Worker) -> None:
        for index in worker.hand:
            self._queue.put_back(index)

    def _lose(self, worker: Worker, *, kill: bool) -> str:
        self._workers.remove(worker)
        self._earlier += worker.load
        self._begun.update(worker.hand)
        how = worker.end(kill=kill)
        self._clean_up(worker)
        return how

    def _fail(self, index: int, reason: str, seconds: float = 0.0) -> None:
        self._books.add(index, failed_row(self._tasks[index], reason, seconds), self._load())


class LocalCrew(Crew[Supervised]):
    """Worker processes of this machine.

    Args:
        tasks: The job.
        options: The encoder.
        layout: Processes and threads.
        timeout_s: Seconds that a slide may take of its own; None: for ever.
        books: Takes the rows.
    """

    def __init__(
        self,
        tasks: Sequence[SlideTask],
        options: EncoderConfig,
        layout: Layout,
        timeout_s: float | None,
        books: Bookkeeping,
    ) -> None:
        super().__init__(tasks, options, timeout_s, books)
        self._layout = layout
        self._started = 0

    def _places(self) -> Iterable[int]:
        return range(self._layout.processes)

    def _recruit(self, number: int) -> Supervised:
        self._started += 1
        return Supervised(self._options, self._layout, number, loud=self._started == 1)

    def _listen(self, patience_s: float | None) -> Sequence[Supervised]:
        ready = wait([worker.connection for worker in self._workers], patience_s)
        return [worker for worker in self._workers if worker.connection in ready]
