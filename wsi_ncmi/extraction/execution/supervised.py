"""The supervisor's view of one worker process."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from wsi_ncmi.encoders import EncoderConfig
from wsi_ncmi.extraction.execution.layout import Layout
from wsi_ncmi.extraction.execution.member import Member
from wsi_ncmi.extraction.execution.worker import serve
from wsi_ncmi.extraction.task import SlideTask

__all__ = ["Supervised"]

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_PATIENCE_S = 5.0


class Supervised(Member):
    """A spawned worker with a pipe of its own, so that its death or silence is nobody else's.

    Args:
        options: The encoder that it loads.
        layout: Its threads, memory and device.
        number: Its place in the layout.
        loud: Whether it shows warnings about the encoder.

    Attributes:
        connection: The supervisor's end of the pipe.
    """

    def __init__(self, options: EncoderConfig, layout: Layout, number: int, *, loud: bool) -> None:
        super().__init__(number)
        context = multiprocessing.get_context("spawn")
        self.connection: Connection
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(
            target=serve,
            args=(theirs, options, layout.engine, layout.threads, loud, os.getpid()),
            daemon=True,
        )
        # Thread pools and CUDA read these when they are first loaded, before any code of ours runs in the
        # child: they have to be in the environment that it starts with.
        wanted = dict.fromkeys(_THREAD_VARIABLES, str(layout.threads))
        device = layout.devices[number]
        if device is not None:
            wanted["CUDA_VISIBLE_DEVICES"] = device
        with _environment(wanted):
            self.process.start()
        # The supervisor's copy must go, or the end of the child would never read as the end of the pipe.
        theirs.close()

    def _send(self, index: int, task: SlideTask) -> None:
        with contextlib.suppress(OSError):
            self.connection.send((index, task))

    def receive(self) -> list[Any]:
        """The next message of its pipe."""
        return [self.connection.recv()]

    def end(self, *, kill: bool = False) -> str:
        """Ends the process: at once, or when it sees that its pipe has ended."""
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


@contextlib.contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
