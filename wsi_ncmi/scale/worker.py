"""A worker process: loads the encoder once, then extracts the slides that it is handed."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any

from wsi_ncmi.encoders import EncoderOptions, load_encoder
from wsi_ncmi.errors import WsiNcmiError
from wsi_ncmi.features import SlideTask, extract_slide

__all__ = ["limit_threads", "serve"]

_ORPHAN_CHECK_S = 1.0


def serve(connection: Connection, options: EncoderOptions, threads: int, loud: bool, parent: int) -> None:
    """Runs in the child until its pipe ends.

    It says ``("ready",)`` once, then for each task ``("row", LedgerRow)``; ``("stop", error)`` when the whole
    job can't go on.

    Args:
        connection: The child's end of its own pipe.
        options: The encoder.
        threads: Compute threads.
        loud: Whether warnings about the encoder are shown (by one worker only).
        parent: Process id of the supervisor; without it nobody waits for a result.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, who ends us.
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    if not loud:
        logging.getLogger("wsi_ncmi.encoders").setLevel(logging.ERROR)
    try:
        encoder = load_encoder(options)
        limit_threads(threads)
    except WsiNcmiError as error:
        _send(connection, ("stop", error))
        return
    _send(connection, ("ready",))
    while True:
        try:
            task: SlideTask = connection.recv()
        except EOFError:
            # Torch takes seconds to leave a process in order; all our files are closed and on disk by now.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
        try:
            message: tuple[Any, ...] = ("row", extract_slide(task, encoder, batch_size=options.batch_size))
        except WsiNcmiError as error:
            message = ("stop", error)
        _send(connection, message)


def limit_threads(threads: int) -> None:
    """Lets torch use so many threads, if the encoder has loaded torch at all."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


def _send(connection: Connection, message: tuple[Any, ...]) -> None:
    try:
        connection.send(message)
    except (BrokenPipeError, ConnectionResetError):
        raise SystemExit(1) from None  # The parent is gone.


def _die_with(parent: int) -> None:
    # A supervisor killed by SIGKILL can't end its workers; the system gives them another parent: that shows.
    pause = threading.Event()
    while os.getppid() == parent:
        pause.wait(_ORPHAN_CHECK_S)
    os._exit(1)
