"""SIGTERM, a batch system's and a container's way to end a job, unwinds like Ctrl-C."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


class TerminatedError(KeyboardInterrupt):
    """SIGTERM came: somebody or something else than the keyboard ends the job."""


@contextlib.contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Lets SIGTERM raise :class:`TerminatedError` in the block, so that nothing is left behind.

    Outside the main thread it does nothing: only that may set handlers.
    """

    def interrupt(number: int, frame: Any) -> None:
        raise TerminatedError

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
