"""Local processes that outlive one another: a killed process costs only the task it held.

``multiprocessing.Pool`` and ``ProcessPoolExecutor`` both lose more than that: the first waits for ever for
the result of a killed worker, the second breaks all its futures.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from wsi_ncmi.core.errors import WsiNcmiError

__all__ = ["Outcome", "Work", "run_in_processes"]

Work = Callable[[Any, Callable[[Any], None]], Any]
"""What a process does with a task: ``work(task, tell)``, where ``tell(news)`` reaches the parent."""

_ATTEMPTS = 2
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Outcome:
    """How a task ended.

    Attributes:
        index: Position of the task in the given sequence.
        result: What the work returned; ``None`` when it failed.
        problem: One sentence when it failed, else empty.
        details: Traceback of an unexpected error, else empty.
    """

    index: int
    result: Any = None
    problem: str = ""
    details: str = ""


def run_in_processes(
    tasks: Sequence[Any],
    setup: Callable[[], Work],
    *,
    workers: int,
    on_news: Callable[[int, Any], None],
    gpus: Sequence[str] = (),
) -> Iterator[Outcome]:
    """Runs tasks in spawned processes, each with one compute thread, and yields outcomes as they come.

    Args:
        tasks: Picklable tasks.
        setup: Picklable; called once in each process, it returns the function that does the tasks.
        workers: Most processes at a time.
        on_news: Called in the parent with a task's position and what the work told.
        gpus: Names of GPUs (as in ``CUDA_VISIBLE_DEVICES``); the processes are dealt over them, and each sees
            its own alone. Empty leaves what is visible as it is.

    Yields:
        One ``Outcome`` per task. A task whose process died is tried once more in a new process.
    """
    queue = deque((index, 1) for index in range(len(tasks)))
    crew: list[_Worker] = []
    try:
        while queue or crew:
            while queue and len(crew) < workers:
                slot = min(set(range(workers)) - {worker.slot for worker in crew})
                crew.append(_Worker(setup, slot, gpus))
                crew[-1].give(*queue.popleft(), tasks)
            wait([worker.connection for worker in crew])
            for worker in list(crew):
                if not worker.connection.poll():
                    continue
                try:
                    kind, *content = worker.connection.recv()
                except (EOFError, OSError):
                    crew.remove(worker)
                    code = worker.end()
                    if worker.attempt < _ATTEMPTS:
                        queue.append((worker.index, worker.attempt + 1))
                    else:
                        yield Outcome(worker.index, problem=_death(code))
                    continue
                if kind == "news":
                    on_news(worker.index, content[0])
                    continue
                index = worker.index
                if queue:
                    worker.give(*queue.popleft(), tasks)
                else:
                    crew.remove(worker)
                    worker.end()
                if kind == "done":
                    yield Outcome(index, result=content[0])
                else:
                    yield Outcome(index, problem=content[0], details=content[1])
    finally:
        for worker in crew:
            worker.process.terminate()
            worker.end()


def _death(code: int | None) -> str:
    reason = f"exit code {code}"
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            reason = f"signal {signal.Signals(-code).name}"
    return (
        f"The process of this run died {_ATTEMPTS} times (last: {reason}); a kill by the system mostly means "
        "too little memory: use fewer workers or a smaller training.cache_mib."
    )


class _Worker:
    def __init__(self, setup: Callable[[], Work], slot: int, gpus: Sequence[str]) -> None:
        self.slot = slot
        context = multiprocessing.get_context("spawn")
        self.connection: Connection
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=_serve, args=(theirs, setup), daemon=True)
        # Thread pools read these when numpy and torch are first imported, which happens before any code of
        # ours runs in the child: they have to be in the environment that it starts with.
        wanted = dict.fromkeys(_THREAD_VARIABLES, "1")
        if gpus:
            wanted["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
        before = {name: os.environ.get(name) for name in wanted}
        os.environ.update(wanted)
        try:
            self.process.start()
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
        # The parent's copy must go, or the end of the child would never read as the end of the pipe.
        theirs.close()
        self.index = -1
        self.attempt = 0

    def give(self, index: int, attempt: int, tasks: Sequence[Any]) -> None:
        self.index, self.attempt = index, attempt
        # A process that died meanwhile shows as the end of its pipe, where the task is queued again.
        with contextlib.suppress(OSError):
            self.connection.send(tasks[index])

    def end(self) -> int | None:
        self.connection.close()
        self.process.join(timeout=30)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        return self.process.exitcode


def _serve(connection: Connection, setup: Callable[[], Work]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, who ends us.
    work: Work | None = None

    def tell(news: Any) -> None:
        _send(connection, ("news", news))

    while True:
        try:
            task = connection.recv()
        except EOFError:
            # Torch takes seconds to leave a process in order; all our files are closed and on disk by now.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
        try:
            if work is None:
                work = setup()
            result = work(task, tell)
        except WsiNcmiError as error:
            _send(connection, ("failed", str(error), ""))
        except Exception as error:
            _send(connection, ("failed", f"{type(error).__name__}: {error}", traceback.format_exc()))
        else:
            _send(connection, ("done", result))


def _send(connection: Connection, message: tuple[Any, ...]) -> None:
    try:
        connection.send(message)
    except (BrokenPipeError, ConnectionResetError):
        raise SystemExit(1) from None  # The parent is gone: nobody waits for this run.
