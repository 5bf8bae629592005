"""Supervises workers, each with several items in flight; a bad item costs itself alone."""

import logging
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from wsi_ncmi.core.errors import JobStoppedError, WsiNcmiError
from wsi_ncmi.parallel.worker import (
    Finished,
    Logged,
    Message,
    Paused,
    Progress,
    Ready,
    Resumed,
    SlotFree,
    Started,
    Stopped,
    WorkerHandle,
)

__all__ = ["ItemQueue", "Job", "WorkerPool"]

_MAX_BAD_STARTS = 3
_MAX_DEATHS = 2
_RETRY_S = 2.0

Handle = TypeVar("Handle", bound=WorkerHandle)


class ItemQueue:
    """Positions of the items to do: in the order given, and postponed ones again a little later.

    Args:
        count: Number of items.
    """

    def __init__(self, count: int) -> None:
        self._next = deque(range(count))
        self._later: deque[tuple[float, int]] = deque()

    def __len__(self) -> int:
        return len(self._next) + len(self._later)

    def take(self) -> int | None:
        """The next position, or None when all that is left was postponed."""
        if self._next:
            return self._next.popleft()
        if self._later and self._later[0][0] <= time.monotonic():
            return self._later.popleft()[1]
        return None

    def put_back(self, index: int) -> None:
        """Puts back an item that was begun and not finished: it comes next."""
        self._next.appendleft(index)

    def postpone(self, index: int) -> None:
        """Puts back an item that can't be worked on now."""
        self._later.append((time.monotonic() + _RETRY_S, index))

    @property
    def wait_s(self) -> float | None:
        """Seconds until :meth:`take` has something; None when it has now, or never."""
        if self._next or not self._later:
            return None
        return max(0.0, self._later[0][0] - time.monotonic())


class Job(ABC):
    """The items of a pool's job, and their results.

    Attributes:
        items: The items; they are handed to the workers.
    """

    items: Sequence[Any]

    @abstractmethod
    def finish(self, index: int, result: Any) -> bool:
        """Takes the result of an item.

        Returns:
            False: there is none yet; the item is to be tried again a little later.
        """

    @abstractmethod
    def fail_overdue(self, index: int, timeout_s: float) -> None:
        """An item took longer than it may and was given up."""

    @abstractmethod
    def fail_deadly(self, index: int, how: str) -> None:
        """Two workers died during an item, the second with nothing else in flight.

        Args:
            index: Position of the item.
            how: How the second ended.
        """

    @abstractmethod
    def take_progress(self, worker: WorkerHandle, message: Progress) -> None:
        """Takes news of an item or of a worker."""

    @abstractmethod
    def mark_lost(self, index: int) -> None:
        """A worker was lost with this item in flight, which is begun anew or given up."""

    @abstractmethod
    def clean_up(self, index: int, worker: WorkerHandle) -> None:
        """Removes what a worker that is gone left of an item."""


class WorkerPool(ABC, Generic[Handle]):
    """Hands out items when workers ask for them, so that none has items that another could begin.

    When a worker dies, every item that it had in flight is suspect. Suspects go back to the queue and are
    then worked on alone: the one during which a second worker dies is the culprit and fails, all others are
    done.

    A context manager for one job; leaving it ends all workers.

    Args:
        timeout_s: Seconds that an item may take of its own; None: for ever.
    """

    def __init__(self, timeout_s: float | None = None) -> None:
        self._timeout_s = timeout_s
        self._workers: list[Handle] = []
        self._bad_starts = 0
        self._said: set[tuple[str, str]] = set()
        self._job: Job
        self._has_begun = False
        self._queue = ItemQueue(0)
        self._deaths: dict[int, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def describe(self) -> Any:
        """What the workers tell of themselves; starts the first one where there is none yet.

        Raises:
            WsiNcmiError: It can't be set up.
        """
        while not (ready := [worker for worker in self._workers if worker.ready]):
            if not self._workers:
                self._workers.append(self._spawn(next(iter(self._slots()))))
            for worker in self._poll(None):
                self._handle_messages(worker)
        return ready[0].info

    def run(self, job: Job) -> None:
        """Returns when every item has its result or has failed."""
        for _ in self.steps(job):
            pass

    def steps(self, job: Job) -> Iterator[None]:
        """The same, step by step: the job has heard something new, or some time has passed."""
        self._has_begun = True
        self._job, self._queue, self._deaths = job, ItemQueue(len(job.items)), {}
        for worker in self._workers:
            if worker.ready:
                self._begin(worker)
        while self._queue or any(worker.in_flight for worker in self._workers):
            self._start_workers()
            speaking = self._poll(self._wait_s())
            for worker in list(self._workers):
                if worker in speaking:
                    self._handle_messages(worker)
                elif worker.overdue:
                    self._terminate_overdue(worker)
            yield

    def stop(self) -> None:
        """Ends all workers; items that are still in flight leave no trace."""
        for worker in self._workers:
            worker.end(kill=bool(worker.in_flight) or not worker.ready)
            self._clean_up(worker)
        self._workers.clear()

    @abstractmethod
    def _slots(self) -> Iterable[int]:
        """The numbers of the workers that there should be now."""

    @abstractmethod
    def _spawn(self, number: int) -> Handle:
        """Starts the worker with that number."""

    @abstractmethod
    def _poll(self, timeout_s: float | None) -> Sequence[Handle]:
        """Waits for messages, so long at most; gives the workers that have some."""

    def _begin(self, worker: Handle) -> None:
        """Tells a worker that is ready how to work on the items of this job."""

    def _clean_up(self, worker: Handle) -> None:
        """Removes what a worker that has ended left of the items in flight."""
        for index in worker.in_flight:
            self._job.clean_up(index, worker)

    def _halt(self, worker: Handle, error: WsiNcmiError) -> None:
        """A worker can't work on any item."""
        raise error

    def _is_crash_suspect(self, worker: Handle) -> bool:
        """Whether the items in flight may have killed a dead worker."""
        return True

    def _start_workers(self) -> None:
        """Starts the workers that are missing and gives items to those that ask."""
        coming = sum(not worker.in_flight for worker in self._workers)
        taken = {worker.number for worker in self._workers}
        for number in self._slots():
            if number not in taken and coming < len(self._queue):
                self._workers.append(self._spawn(number))
                coming += 1
        for worker in sorted(self._workers, key=lambda worker: len(worker.in_flight)):
            while worker.capacity and self._give(worker):
                pass

    def _give(self, worker: Handle) -> bool:
        if any(index in self._deaths for index in worker.in_flight):
            return False  # a suspect is worked on alone
        index = self._queue.take()
        if index is None:
            return False
        if index in self._deaths and worker.in_flight:
            self._queue.put_back(index)
            return False
        worker.give(index, self._job.items[index], self._timeout_s)
        return True

    def _wait_s(self) -> float | None:
        """Seconds until something may have to be done without a message."""
        now = time.monotonic()
        moments = [worker.deadline - now for worker in self._workers if worker.deadline is not None]
        later = self._queue.wait_s
        if later is not None:
            moments.append(later)
        return max(0.0, min(moments)) if moments else None

    def _handle_messages(self, worker: Handle) -> None:
        try:
            messages = worker.receive()
        except (EOFError, OSError):
            self._handle_death(worker)
            return
        for message in messages:
            if isinstance(message, Stopped):
                self._halt(worker, message.error)
                return
            self._handle(worker, message)

    def _handle(self, worker: Handle, message: Message) -> None:
        match message:
            case Ready(info):
                worker.ready, worker.info = True, info
                if self._has_begun:
                    self._begin(worker)
            case SlotFree():
                self._bad_starts = 0
                worker.capacity, worker.has_asked = worker.capacity + 1, True
            case Started(index) | Resumed(index):
                worker.in_flight[index].start()
            case Paused(index):
                worker.in_flight[index].pause()
            case Progress():
                self._job.take_progress(worker, message)
            case Logged(record):
                self._log(record)
            case Finished(index, result):
                del worker.in_flight[index]
                if not self._job.finish(index, result):
                    self._queue.postpone(index)

    def _log(self, record: logging.LogRecord) -> None:
        """Passes a record on; what several workers say in the same words is said once."""
        logger, said = logging.getLogger(record.name), (record.name, record.getMessage())
        if said not in self._said and logger.isEnabledFor(record.levelno):
            self._said.add(said)
            logger.handle(record)

    def _terminate_overdue(self, worker: Handle) -> None:
        """Kills a worker, for nothing less ends a hung read; its other items are begun anew."""
        overdue = worker.overdue
        self._terminate(worker, kill=True)
        for index in worker.in_flight:
            if index not in overdue:
                self._queue.put_back(index)
        for index in overdue:
            self._job.fail_overdue(index, self._timeout_s or 0.0)

    def _handle_death(self, worker: Handle) -> None:
        how = self._terminate(worker, kill=False)
        if not self._is_crash_suspect(worker):
            self._put_back(worker)
            return
        if not worker.in_flight:
            self._bad_starts += not worker.has_asked
            if self._bad_starts >= _MAX_BAD_STARTS:
                raise JobStoppedError(
                    f"{_MAX_BAD_STARTS} worker processes in a row died before they could start ({how}); "
                    "most often memory is short: use fewer workers (--workers); and what a Python script "
                    'calls has to stand below `if __name__ == "__main__":`.'
                )
            return
        for index in worker.in_flight:
            self._deaths[index] = self._deaths.get(index, 0) + 1
            if self._deaths[index] < _MAX_DEATHS:
                self._queue.put_back(index)
            else:
                self._job.fail_deadly(index, how)

    def _put_back(self, worker: Handle) -> None:
        for index in worker.in_flight:
            self._queue.put_back(index)

    def _terminate(self, worker: Handle, *, kill: bool) -> str:
        self._workers.remove(worker)
        for index in worker.in_flight:
            self._job.mark_lost(index)
        how = worker.end(kill=kill)
        self._clean_up(worker)
        return how
