"""Worker processes of this machine, spawned, each with a pipe of its own.

``multiprocessing.Pool`` and ``ProcessPoolExecutor`` lose more than one item with a killed process: the first
waits for its result for ever, the second breaks all its futures.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from logging.handlers import QueueHandler
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

from wsi_ncmi.core.errors import JobStoppedError, WsiNcmiError
from wsi_ncmi.parallel.pool import WorkerPool
from wsi_ncmi.parallel.worker import Logged, Message, Ready, Stopped, WorkerHandle

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_JOIN_S = 5.0
_ORPHAN_CHECK_S = 1.0


class Worker(Protocol):
    """What does the work inside a worker process."""

    @property
    def info(self) -> Any:
        """What the supervisor is told once it is set up; picklable."""

    def begin(self, config: Any, send: Callable[[Message], None]) -> None:
        """Gets ready for items and asks for the first ones.

        Args:
            config: Of the job, picklable.
            send: Tells the supervisor; may be called from any thread.
        """

    def submit(self, index: int, item: Any) -> None:
        """Takes an item; its result may be sent later."""


class ProcessPool(WorkerPool["ProcessWorker"]):
    """A pool of spawned processes.

    Args:
        make: Picklable; called once in each process, makes what does the work there.
        size: Processes.
        threads: Compute threads of each that numerical libraries start with.
        gpus: Names of GPUs (as in ``CUDA_VISIBLE_DEVICES``); the processes are dealt over them, and each sees
            its own alone. Empty leaves what is visible as it is.
        config: What every worker is told before its first item.
        timeout_s: Seconds that an item may take of its own; None: for ever.
        needs_main: Whether the processes run the main module first, as what is defined there may be needed.
            Without it they start sooner, and a script needs no ``if __name__ == "__main__"``.

    Attributes:
        size: Processes.
        config: What every worker is told; both may be set until the job is run.
    """

    def __init__(
        self,
        make: Callable[[], Worker],
        *,
        size: int,
        threads: int = 1,
        gpus: Sequence[str] = (),
        config: Any = None,
        timeout_s: float | None = None,
        needs_main: bool = True,
    ) -> None:
        super().__init__(timeout_s)
        self._make, self._threads, self._gpus, self._needs_main = make, threads, gpus, needs_main
        self.size, self.config = size, config

    def _slots(self) -> Iterable[int]:
        return range(self.size)

    def _spawn(self, number: int) -> ProcessWorker:
        # Thread pools and CUDA read these when they are first loaded, before any code of ours runs in the
        # child: they have to be in the environment that it starts with.
        variables = dict.fromkeys(_THREAD_VARIABLES, str(self._threads))
        if self._gpus:
            variables["CUDA_VISIBLE_DEVICES"] = self._gpus[number % len(self._gpus)]
        return ProcessWorker(number, self._make, variables, needs_main=self._needs_main)

    def _poll(self, timeout_s: float | None) -> Sequence[ProcessWorker]:
        ready = wait([worker.connection for worker in self._workers], timeout_s)
        return [worker for worker in self._workers if worker.connection in ready]

    def _begin(self, worker: ProcessWorker) -> None:
        worker.send(self.config)


class ProcessWorker(WorkerHandle):
    """A spawned process with a pipe of its own, so that its death or silence is nobody else's.

    Args:
        number: Number of its slot.
        make: As in :class:`ProcessPool`.
        variables: Environment variables that it starts with, beside those of this process.
        needs_main: As in :class:`ProcessPool`.

    Attributes:
        connection: The supervisor's end of the pipe.
    """

    def __init__(
        self,
        number: int,
        make: Callable[[], Worker],
        variables: Mapping[str, str],
        *,
        needs_main: bool = True,
    ) -> None:
        super().__init__(number)
        context = multiprocessing.get_context("spawn")
        self.connection: Connection
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=serve, args=(theirs, os.getpid()), daemon=True)
        with _environment(variables), contextlib.nullcontext() if needs_main else _without_main():
            self.process.start()
        # The supervisor's copy must go, or the end of the child would never read as the end of the pipe.
        theirs.close()
        # Not among the arguments: what is larger than a pipe would wait for ever in ``start`` for a process
        # that died while it ran the main module, as it does for a script without
        # ``if __name__ == "__main__"``.
        self.send(make)

    def send(self, content: Any) -> None:
        """Sends something picklable; a dead process shows as the end of its pipe."""
        with contextlib.suppress(OSError):
            self.connection.send(content)

    def _send(self, index: int, item: Any) -> None:
        self.send((index, item))

    def receive(self) -> list[Message]:
        """The next message of its pipe."""
        return [self.connection.recv()]

    def end(self, *, kill: bool = False) -> str:
        """Ends the process: at once, or when it sees that its pipe has ended."""
        if kill:
            self.process.kill()
        self.connection.close()
        self.process.join(_JOIN_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        code = self.process.exitcode
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                return f"signal {signal.Signals(-code).name}"
        return f"exit code {code}"


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Hides the main module from multiprocessing, which tells spawned processes to run it."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def serve(connection: Connection, parent: int) -> None:
    """Runs in the child until its pipe ends.

    It takes what makes its worker, and sends ``Ready`` once, then what the worker tells; ``Stopped`` where
    that can't be set up. It takes the job's config, then pairs of an item's position and the item, one for
    each ``SlotFree``.

    Args:
        connection: The child's end of its own pipe.
        parent: Process id of the supervisor; without it nobody waits for a result.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, who ends us.
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    lock = threading.Lock()

    def send(message: Message) -> None:
        with lock:
            try:
                connection.send(message)
            except OSError:
                os._exit(1)  # The parent is gone; any thread may be the first to notice.

    logging.getLogger().addHandler(ForwardHandler(send))
    try:
        worker: Worker = _receive(connection)()
    except WsiNcmiError as error:
        send(Stopped(error))
        return
    except Exception as error:
        what = f"internal error {type(error).__name__}: {error}"
        send(Stopped(JobStoppedError(f"A worker process can't start: {what}.")))
        raise
    send(Ready(worker.info))
    worker.begin(_receive(connection), send)
    while True:
        worker.submit(*_receive(connection))


def _receive(connection: Connection) -> Any:
    try:
        return connection.recv()
    except (EOFError, OSError):  # the latter where the supervisor left messages unread
        # Torch takes seconds to leave a process in order; our files are closed and on disk by now.
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(AttributeError, OSError, ValueError):  # none, full or closed
                stream.flush()
        os._exit(0)


class ForwardHandler(QueueHandler):
    """Sends log records, made picklable.

    Args:
        send: Takes a ``Logged`` for each.
    """

    def __init__(self, send: Callable[[Message], None]) -> None:
        super().__init__(None)  # type: ignore[arg-type]  # there is no queue
        self._send = send

    def enqueue(self, record: logging.LogRecord) -> None:
        """Sends a record."""
        self._send(Logged(record))


def _die_with(parent: int) -> None:
    # A supervisor killed by SIGKILL can't end its workers; the system gives them another parent: that shows.
    pause = threading.Event()
    while os.getppid() == parent:
        pause.wait(_ORPHAN_CHECK_S)
    os._exit(1)
