"""Heartbeat of a job: a file touched at every step, whose age a health check reads.

``python -m wsi_ncmi.core.heartbeat`` is the check of the container images; it imports nothing heavy.
"""

import contextlib
import os
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
_last = -_MIN_INTERVAL_S


def beat() -> None:
    """Says that the job got on; cheap, and never an error."""
    global _last
    now = time.monotonic()
    name = os.environ.get(FILE_VARIABLE)
    if not name or now - _last < _MIN_INTERVAL_S:
        return
    _last = now
    with contextlib.suppress(OSError):
        Path(name).touch()


def state(environment: Mapping[str, str] = os.environ, now_s: float | None = None) -> tuple[bool, str]:
    """Looks at the file.

    Args:
        environment: Names the file and the limit.
        now_s: Seconds since the epoch; None: now.

    Returns:
        Whether the job gets on, and a sentence.
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
    except OSError:
        return False, f"There is no file {name}: the job has not begun."
    if age > limit:
        return False, f"The job has made no step for {age:.0f} s (limit {limit:.0f} s, {STALL_VARIABLE})."
    return True, f"The last step was {max(age, 0):.0f} s ago."


def _main() -> int:
    alive, sentence = state()
    print(sentence)
    return 0 if alive else 1


if __name__ == "__main__":
    sys.exit(_main())
