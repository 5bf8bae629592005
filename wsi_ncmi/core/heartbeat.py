"""Heartbeat of a job: a file touched at every step, whose age a health check reads, and systemd's watchdog.

``python -m wsi_ncmi.core.heartbeat`` is the check of the container images; it imports nothing heavy. With
``--restart`` it kills a service that is stuck, so that the container ends and its restart policy sets in.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

FILE_VARIABLE = "WSI_NCMI_HEARTBEAT"
"""Names the file; where it is not set, nothing is touched."""

STALL_VARIABLE = "WSI_NCMI_STALL_S"
"""Seconds without a step after which a job counts as stuck."""

_STALL_S = 3600.0
_MIN_INTERVAL_S = 1.0
_STUCK = "The job has made no step for"
_last = -_MIN_INTERVAL_S


def beat(stage: str = "") -> None:
    """Says that the job got on; cheap, and never an error.

    Args:
        stage: Of a service: ``starting``, or ``ready`` to take work; it stays until another is given.
    """
    global _last
    now = time.monotonic()
    if not stage and now - _last < _MIN_INTERVAL_S:
        return
    _last = now
    if name := os.environ.get(FILE_VARIABLE):
        with contextlib.suppress(OSError):
            if stage:
                Path(name).write_text(f"{stage} {os.getpid()}\n")
            else:
                Path(name).touch()
    if address := os.environ.get("NOTIFY_SOCKET"):
        _tell_systemd(address, "READY=1\n" if stage == "ready" else "")


def _tell_systemd(address: str, news: str) -> None:
    """Feeds the watchdog; source: sd_notify(3)."""
    import socket

    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.sendto(f"{news}WATCHDOG=1".encode(), f"\0{address[1:]}" if address[0] == "@" else address)


def state(environment: Mapping[str, str] = os.environ, now_s: float | None = None) -> tuple[bool, str]:
    """Looks at the file.

    Args:
        environment: Names the file and the limit.
        now_s: Seconds since the epoch; None: now.

    Returns:
        Whether the job gets on (a service also: is ready), and a sentence.
    """
    name = environment.get(FILE_VARIABLE)
    if not name:
        return True, f"{FILE_VARIABLE} is not set, so nothing is known of the job."
    try:
        limit = float(environment.get(STALL_VARIABLE) or _STALL_S)
    except ValueError:
        return False, f"{STALL_VARIABLE} is {environment[STALL_VARIABLE]!r}, which is no number of seconds."
    try:
        age = (time.time() if now_s is None else now_s) - Path(name).stat().st_mtime
        stage, _ = _service(name)
    except OSError:
        return False, f"There is no file {name}: the job has not begun."
    if abs(age) > limit:  # from the future: the clock was set back, and nothing was touched since
        return False, f"{_STUCK} {age:.0f} s (limit {limit:.0f} s, {STALL_VARIABLE})."
    if stage == "starting":
        return False, f"The service is starting; its last step was {max(age, 0):.0f} s ago."
    return True, f"The last step was {max(age, 0):.0f} s ago."


def _service(name: str) -> tuple[str, int]:
    """Stage and process of a service; empty and 0 of another job."""
    stage, _, process = Path(name).read_text().strip().partition(" ")
    return stage, int(process) if process.isdigit() else 0


def _main(arguments: list[str]) -> int:
    alive, sentence = state()
    print(sentence)
    is_stuck = arguments == ["--restart"] and sentence.startswith(_STUCK)
    if is_stuck and (process := _service(os.environ[FILE_VARIABLE])[1]):
        os.kill(process, signal.SIGKILL)  # it may hang where no other signal is heard
    return 0 if alive else 1


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
