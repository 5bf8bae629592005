"""The process's standard streams: open, able to write every text, and in JSON where log lines are."""

import atexit
import contextlib
import json
import logging
import os
import re
import select
import signal
import sys
import warnings
from typing import TextIO

from wsi_ncmi.core.logging import JsonLines, is_json

_ENDS = re.compile(rb"[\r\n]")  # progress bars of libraries end their lines with the former
_SYNC = b"\0wsi-ncmi: written\0"
_SYNC_S = 5.0
_MAX_LINE_BYTES = 1 << 20


def prepare_streams() -> None:
    """Makes the streams of this process safe to write to; once, before anything else is opened.

    A closed stream is opened, so that no file of ours gets its number: what is then written to standard
    output fails as it should, messages are dropped. What an encoding lacks is written as an escape. Where log
    lines are JSON, so is every other line on standard error, whoever writes it: Python's warnings, libraries
    in C, worker processes.
    """
    for number, flags in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            # Takes the lowest number that is free: this one. Worker processes inherit it.
            os.set_inheritable(os.open(os.devnull, flags), True)
    sys.stdout = _prepared(sys.stdout, 1)
    sys.stderr = _prepared(sys.stderr, 2)
    logging.captureWarnings(True)
    warnings.formatwarning = lambda message, category, *_: f"{category.__name__}: {message}"
    if is_json():
        _wrap_stderr()


def _prepared(stream: TextIO | None, number: int) -> TextIO:
    if stream is None:
        return open(number, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")
    return stream


def drop_stdout() -> None:
    """Sends standard output nowhere from here on."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)


def _wrap_stderr() -> None:
    # A process, not a thread: it also writes what a crash of this one leaves in the pipe.
    inbox, outbox = os.pipe()
    answers, answer = os.pipe()
    if os.fork() == 0:
        try:
            for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
                signal.signal(name, signal.SIG_IGN)  # it ends after the last process that writes to the pipe
            for number in (0, 1, outbox, answers):
                os.close(number)
            _copy(inbox, answer)
        finally:
            os._exit(0)
    os.dup2(outbox, 2)
    for number in (inbox, outbox, answer):
        os.close(number)
    atexit.register(_wait_written, os.getpid(), answers)


def _wait_written(owner: int, answers: int) -> None:
    """Waits until everything written so far is out; registered first, it is the last to run."""
    if os.getpid() == owner:  # not in a forked child
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
            os.write(2, b"\n" + _SYNC + b"\n")
            select.select([answers], [], [], _SYNC_S)


def _copy(inbox: int, answer: int) -> None:
    pending = b""
    while chunk := os.read(inbox, 1 << 16):
        *lines, pending = _ENDS.split(pending + chunk)
        if len(pending) > _MAX_LINE_BYTES:
            lines, pending = [*lines, pending], b""
        for line in lines:
            if line == _SYNC:
                os.write(answer, b".")
            else:
                _write(line)
    _write(pending)


def _write(line: bytes) -> None:
    if line.strip():
        data = (line if _is_record(line) else _record(line)) + b"\n"
        with contextlib.suppress(OSError):  # nobody reads: the others must not wait
            while data:
                data = data[os.write(2, data) :]


def _is_record(line: bytes) -> bool:
    try:
        return line.startswith(b"{") and isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _record(line: bytes) -> bytes:
    text = line.decode("utf-8", "backslashreplace")
    record = logging.LogRecord("stderr", logging.WARNING, "", 0, text.strip(), None, None)
    return JsonLines().format(record).encode()
