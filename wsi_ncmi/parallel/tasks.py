"""Runs independent items with one function, in this process or in worker processes."""

import traceback
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from wsi_ncmi.core.errors import WsiNcmiError, storage_fault
from wsi_ncmi.parallel.pool import Job
from wsi_ncmi.parallel.process_pool import ProcessPool
from wsi_ncmi.parallel.worker import Finished, Message, Progress, SlotFree, Started, WorkerHandle

Work = Callable[[Any, Callable[[Any], None]], Any]
"""What is done with an item: ``work(item, callback)``; what ``callback`` is given reaches the caller."""


@dataclass(frozen=True)
class Outcome:
    """The end of an item.

    Attributes:
        index: Position of the item in the given sequence.
        result: What the work returned; ``None`` when it failed.
        problem: One sentence when it failed, else empty.
        details: Traceback of an unexpected error, else empty.
    """

    index: int
    result: Any = None
    problem: str = ""
    details: str = ""


def run_items(
    items: Sequence[Any],
    setup: Callable[[], Work],
    *,
    workers: int,
    on_news: Callable[[int, Any], None] = lambda index, news: None,
    gpus: Sequence[str] = (),
    catch: type[Exception] | tuple[type[Exception], ...] = Exception,
    advice: str = "use fewer workers",
) -> Generator[Outcome, None, None]:
    """Runs items and yields outcomes as they come.

    With several workers each runs in a spawned process with one compute thread, and a process that dies costs
    its item alone, which is tried once more in a new process.

    Args:
        items: Picklable items.
        setup: Picklable; called once in each process, it returns the function that does the work.
        workers: Most processes at a time; with one, everything runs in this process.
        on_news: Called here with an item's position and what its work told.
        gpus: Names of GPUs that the processes are dealt over.
        catch: Errors in this process that cost their item alone; others are raised.
        advice: What to do where processes die for want of memory.

    Yields:
        One ``Outcome`` per item.

    Raises:
        JobStoppedError: Processes die before they can start.
    """
    if workers <= 1:
        work = setup()
        for index, item in enumerate(items):
            yield _attempt(work, index, item, partial(on_news, index), catch)
        return
    job = _OutcomesOfJob(items, on_news, advice)
    with ProcessPool(partial(_ItemWorker, setup), size=workers, gpus=gpus) as pool:
        for _ in pool.steps(job):
            while job.outcomes:
                yield job.outcomes.popleft()


def _attempt(
    work: Work,
    index: int,
    item: Any,
    callback: Callable[[Any], None],
    catch: type[Exception] | tuple[type[Exception], ...],
) -> Outcome:
    try:
        return Outcome(index, work(item, callback))
    except catch as error:
        if isinstance(error, WsiNcmiError):
            return Outcome(index, problem=str(error))
        problem = storage_fault(error) or f"{type(error).__name__}: {error}"
        return Outcome(index, problem=problem, details=traceback.format_exc())


class _ItemWorker:
    """Does one item at a time in a worker process; the setup waits for the first one, and fails with it."""

    info = None

    def __init__(self, setup: Callable[[], Work]) -> None:
        self._setup = setup
        self._work: Work | None = None

    def begin(self, config: Any, send: Callable[[Message], None]) -> None:
        self._send = send
        send(SlotFree())

    def submit(self, index: int, item: Any) -> None:
        self._send(Started(index))

        def work(item: Any, callback: Callable[[Any], None]) -> Any:
            if self._work is None:
                self._work = self._setup()
            return self._work(item, callback)

        outcome = _attempt(work, index, item, lambda news: self._send(Progress(news, index)), Exception)
        self._send(Finished(index, outcome))
        self._send(SlotFree())


class _OutcomesOfJob(Job):
    def __init__(self, items: Sequence[Any], on_news: Callable[[int, Any], None], advice: str) -> None:
        self.items, self._on_news, self._advice = items, on_news, advice
        self.outcomes: deque[Outcome] = deque()

    def finish(self, index: int, result: Outcome) -> bool:
        self.outcomes.append(result)
        return True

    def take_progress(self, worker: WorkerHandle, message: Progress) -> None:
        self._on_news(message.index, message.content)

    def mark_lost(self, index: int) -> None:
        """Nothing: the item is tried again, or its outcome says so."""

    def clean_up(self, index: int, worker: WorkerHandle) -> None:
        """Nothing: files are published whole or not at all."""

    def fail_overdue(self, index: int, timeout_s: float) -> None:
        self.outcomes.append(Outcome(index, problem=f"It took longer than {timeout_s:g} s and was given up."))

    def fail_deadly(self, index: int, how: str) -> None:
        problem = (
            f"The process of this run died 2 times (last: {how}); a kill by the system mostly means too "
            f"little memory: {self._advice}."
        )
        self.outcomes.append(Outcome(index, problem=problem))
