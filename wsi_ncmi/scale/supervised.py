"""The supervisor's view of one worker process."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from wsi_ncmi.encoders import EncoderOptions
from wsi_ncmi.features import SlideTask
from wsi_ncmi.scale.worker import serve

__all__ = ["Supervised"]

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_PATIENCE_S = 5.0


class Supervised:
    """A spawned worker with a pipe of its own, so that its death or silence is nobody else's.

    Args:
        options: The encoder that it loads.
        threads: Its compute threads.
        loud: Whether it shows warnings about the encoder.

    Attributes:
        connection: The supervisor's end of the pipe.
        ready: Whether the encoder is loaded.
        index: Position of the task in hand, or None.
        deadline: When that task is overdue (monotonic seconds), or None.
    """

    def __init__(self, options: EncoderOptions, *, threads: int, loud: bool) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection: Connection
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(
            target=serve, args=(theirs, options, threads, loud, os.getpid()), daemon=True
        )
        # Thread pools read these when numpy and torch are first imported, before any code of ours runs in the
        # child: they have to be in the environment that it starts with.
        before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
        os.environ.update(dict.fromkeys(_THREAD_VARIABLES, str(threads)))
        try:
            self.process.start()
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
        # The supervisor's copy must go, or the end of the child would never read as the end of the pipe.
        theirs.close()
        self.ready = False
        self.index: int | None = None
        self.deadline: float | None = None

    def give(self, index: int, task: SlideTask, timeout_s: float | None) -> None:
        """Hands over a task; a child that has died meanwhile shows as the end of its pipe."""
        self.index = index
        self.deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with contextlib.suppress(OSError):
            self.connection.send(task)

    @property
    def is_overdue(self) -> bool:
        """Whether the task in hand has taken longer than it may."""
        return self.deadline is not None and time.monotonic() >= self.deadline

    def end(self, *, kill: bool = False) -> str:
        """Ends the process and waits until it is gone.

        Args:
            kill: At once, instead of when it sees that its pipe has ended.

        Returns:
            How it ended, in words.
        """
        if kill:
            self.process.kill()
        self.connection.close()
        self.process.join(_PATIENCE_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        code = self.process.exitcode
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                return f"signal {signal.Signals(-code).name}"
        return f"exit code {code}"
