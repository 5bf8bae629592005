"""A worker process: loads the encoder once, then runs an engine on the slides that it is handed."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any

from wsi_ncmi.core.errors import WsiNcmiError
from wsi_ncmi.core.logging import configure_logging
from wsi_ncmi.encoders import EncoderConfig, load_encoder
from wsi_ncmi.extraction.execution.layout import limit_threads
from wsi_ncmi.extraction.pipeline import Engine, PipelineConfig, Stopped
from wsi_ncmi.parallel.allocator import keep_large_buffers

__all__ = ["serve"]

_ORPHAN_CHECK_S = 1.0


def serve(
    connection: Connection,
    options: EncoderConfig,
    engine: PipelineConfig,
    threads: int,
    loud: bool,
    parent: int,
) -> None:
    """Runs in the child until its pipe ends.

    It says ``"ready"`` once, then every event of its engine; ``Stopped`` when the whole job can't go on. It
    takes pairs of a task's position and the task, one for each time that it said ``SlotFree``.

    Args:
        connection: The child's end of its own pipe.
        options: The encoder.
        engine: Threads and memory of the engine.
        threads: Compute threads of one encoding thread.
        loud: Whether warnings about the encoder are shown (by one worker only).
        parent: Process id of the supervisor; without it nobody waits for a result.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, who ends us.
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    configure_logging(logging.WARNING)
    if not loud:
        logging.getLogger("wsi_ncmi.encoders").setLevel(logging.ERROR)
    if ":" in options.name:
        keep_large_buffers()
    lock = threading.Lock()

    def send(message: Any) -> None:
        with lock:
            try:
                connection.send(message)
            except (BrokenPipeError, ConnectionResetError, OSError):
                os._exit(1)  # The parent is gone; any thread may be the first to notice.

    try:
        encoder = load_encoder(options)
        limit_threads(threads)
    except WsiNcmiError as error:
        send(Stopped(error))
        return
    send("ready")
    with Engine(encoder, send, engine) as running:
        while True:
            try:
                index, task = connection.recv()
            except EOFError:
                # Torch takes seconds to leave a process in order; our files are closed and on disk by now.
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(0)
            running.submit(index, task)


def _die_with(parent: int) -> None:
    # A supervisor killed by SIGKILL can't end its workers; the system gives them another parent: that shows.
    pause = threading.Event()
    while os.getppid() == parent:
        pause.wait(_ORPHAN_CHECK_S)
    os._exit(1)
