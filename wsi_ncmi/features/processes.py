"""Whether a process of this machine still lives, told from another one that got its number."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

__all__ = ["lived_at", "start_ticks"]

# The boot time is known to the second; file times follow the clock of the file server.
_SLACK_S = 2.0


def start_ticks(process_id: int) -> str:
    """Start time in clock ticks since boot; empty for a process that is gone or a zombie."""
    try:
        text = Path(f"/proc/{process_id}/stat").read_text()
    except OSError:
        return ""
    # The second field is the program's name in parentheses and may hold anything.
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] in ("Z", "X") else fields[19]


def lived_at(process_id: int, moment_s: float) -> bool:
    """Whether a process that lives now was there at a moment already.

    A number is soon given to another process, and to a thread as well: one that started later is not meant.

    Args:
        process_id: Its number.
        moment_s: Seconds since the epoch, for example when a file was last written.

    Returns:
        False when it is gone, a zombie, or younger. Where the system does not tell start times (no
        ``/proc``), whether any process has that number.
    """
    boot = _boot_time_s()
    if boot is None:
        try:
            os.kill(process_id, 0)
        except (ProcessLookupError, OverflowError):
            return False
        except OSError:
            return True
        return True
    ticks = start_ticks(process_id)
    return bool(ticks) and boot + int(ticks) / os.sysconf("SC_CLK_TCK") <= moment_s + _SLACK_S


@cache
def _boot_time_s() -> float | None:
    try:
        lines = Path("/proc/stat").read_text().splitlines()
    except OSError:
        return None
    return next((float(line.split()[1]) for line in lines if line.startswith("btime ")), None)
