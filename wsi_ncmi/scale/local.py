"""Extraction on one machine: spawned, supervised processes; a bad slide costs itself and nothing else."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import wait
from typing import Any

from wsi_ncmi.encoders import EncoderOptions, load_encoder
from wsi_ncmi.errors import JobStoppedError, WsiNcmiError
from wsi_ncmi.features import LedgerRow, SlideTask, clean_up, extract_slide, failed_row
from wsi_ncmi.features.extraction import CLAIMED
from wsi_ncmi.progress import NullProgress, ProgressReporter
from wsi_ncmi.scale.bookkeeping import Bookkeeping
from wsi_ncmi.scale.limits import available_cores
from wsi_ncmi.scale.queue import SlideQueue
from wsi_ncmi.scale.supervised import Supervised
from wsi_ncmi.scale.worker import limit_threads

__all__ = ["run_slides"]

_MOST_BAD_STARTS = 3


def run_slides(
    tasks: Sequence[SlideTask],
    encoder_options: EncoderOptions,
    *,
    workers: int = 1,
    timeout_s: float | None = None,
    progress: ProgressReporter | None = None,
    on_row: Callable[[LedgerRow], None] | None = None,
) -> list[LedgerRow]:
    """Extracts slides, by one worker in this process or by several of their own.

    Every row goes to ``<out>/ledger.jsonl`` (fsynced) as it comes. Slides that another live job on the same
    output holds are waited for. On Ctrl-C or SIGTERM the workers end, unfinished files go, and the same call
    later goes on where it stopped.

    Args:
        tasks: The job.
        encoder_options: The encoder, loaded once by each worker.
        workers: Processes; 1 without a time limit works in this process.
        timeout_s: Seconds after which a slide is given up (its process is killed); None waits for ever.
        progress: Told about every slide, with tiles per second.
        on_row: Called here with every row as it comes.

    Returns:
        One row a task, in the order of the tasks.

    Raises:
        InputError: The encoder can't be loaded, or a file of another identity stands in the way.
        JobStoppedError: The output can't be written to, or workers die before they can start.
        KeyboardInterrupt: Ctrl-C or SIGTERM.
    """
    reporter = progress or NullProgress()
    with (
        _sigterm_as_interrupt(),
        reporter.task("extract", len(tasks), "slides") as shown,
        Bookkeeping(tasks, shown, on_row) as books,
    ):
        if not tasks:
            return []
        if workers <= 1 and timeout_s is None:
            _run_here(tasks, encoder_options, books)
        else:
            crew = _Crew(tasks, encoder_options, min(workers, len(tasks)), timeout_s, books)
            try:
                crew.run()
            finally:
                crew.stop()
        return books.rows


def _run_here(tasks: Sequence[SlideTask], options: EncoderOptions, books: Bookkeeping) -> None:
    encoder = load_encoder(options)
    limit_threads(available_cores())
    queue = SlideQueue(len(tasks))
    while queue:
        index = queue.take()
        if index is None:
            time.sleep(queue.wait_s or 0.0)
            continue
        row = extract_slide(tasks[index], encoder, batch_size=options.batch_size)
        if row.reason == CLAIMED:
            queue.postpone(index)
        else:
            books.add(index, row)


class _Crew:
    """Hands slides to supervised processes one at a time, whichever is free."""

    def __init__(
        self,
        tasks: Sequence[SlideTask],
        options: EncoderOptions,
        workers: int,
        timeout_s: float | None,
        books: Bookkeeping,
    ) -> None:
        self._tasks = tasks
        self._options = options
        self._size = max(1, workers)
        self._timeout_s = timeout_s
        self._books = books
        self._queue = SlideQueue(len(tasks))
        self._threads = max(1, available_cores() // self._size)
        self._workers: list[Supervised] = []
        self._started = 0
        self._bad_starts = 0

    def run(self) -> None:
        """Returns when every task has its row."""
        while self._queue or any(worker.index is not None for worker in self._workers):
            self._man()
            ready = wait([worker.connection for worker in self._workers], self._patience())
            for worker in list(self._workers):
                if worker.connection in ready:
                    self._hear(worker)
                elif worker.is_overdue:
                    self._lose(worker, kill=True)

    def stop(self) -> None:
        """Ends all workers, and what one still has in hand leaves no trace."""
        for worker in self._workers:
            busy = worker.index
            worker.end(kill=busy is not None or not worker.ready)
            if busy is not None:
                clean_up(self._tasks[busy], self._options.name)
        self._workers.clear()

    def _man(self) -> None:
        """Starts the workers that are missing and gives slides to the free ones."""
        idle_or_starting = sum(worker.index is None for worker in self._workers)
        while len(self._workers) < self._size and idle_or_starting < len(self._queue):
            self._started += 1
            self._workers.append(Supervised(self._options, threads=self._threads, loud=self._started == 1))
            idle_or_starting += 1
        for worker in self._workers:
            if worker.ready and worker.index is None:
                index = self._queue.take()
                if index is None:
                    break
                worker.give(index, self._tasks[index], self._timeout_s)

    def _patience(self) -> float | None:
        """Seconds until something may have to be done without news."""
        now = time.monotonic()
        moments = [worker.deadline - now for worker in self._workers if worker.deadline is not None]
        later = self._queue.wait_s
        if later is not None:
            moments.append(later)
        return max(0.0, min(moments)) if moments else None

    def _hear(self, worker: Supervised) -> None:
        try:
            kind, *content = worker.connection.recv()
        except (EOFError, OSError):
            self._lose(worker, kill=False)
            return
        if kind == "stop":
            error: WsiNcmiError = content[0]
            raise error
        self._bad_starts = 0
        if kind == "ready":
            worker.ready = True
            return
        index, worker.index, worker.deadline = worker.index, None, None
        assert index is not None
        row: LedgerRow = content[0]
        if row.reason == CLAIMED:
            self._queue.postpone(index)
        else:
            self._books.add(index, row)

    def _lose(self, worker: Supervised, *, kill: bool) -> None:
        """A worker died, or its slide takes too long: the slide fails, another worker comes."""
        self._workers.remove(worker)
        how = worker.end(kill=kill)
        if worker.index is None:
            self._bad_starts += not worker.ready
            if self._bad_starts >= _MOST_BAD_STARTS:
                raise JobStoppedError(
                    f"{_MOST_BAD_STARTS} worker processes in a row died before they could start ({how}); "
                    "most often memory is short: use fewer workers (--workers)."
                )
            return
        task = self._tasks[worker.index]
        clean_up(task, self._options.name)
        if kill:
            reason = (
                f"took longer than {self._timeout_s:g} s and was given up; check the slide or raise "
                "--timeout-per-slide"
            )
            seconds = self._timeout_s or 0.0
        else:
            reason = (
                f"its worker process died ({how}); a kill by the system mostly means too little memory: "
                "use fewer workers (--workers)"
            )
            seconds = 0.0
        self._books.add(worker.index, failed_row(task, reason, seconds))


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Lets SIGTERM (a batch system's way to end a job) unwind like Ctrl-C, so that nothing is left behind."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
