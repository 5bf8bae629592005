"""Temporary files that killed processes left behind."""

import contextlib
import glob
import os
import re
import shutil
import time
from functools import cache
from pathlib import Path

from wsi_ncmi.core.files import TEMPORARY_SUFFIX

_OLD_S = 300.0
# The names that files.atomic_path gives: .<final name>.<process>-<random>.partial
_TEMPORARY = re.compile(rf"^\.(?P<final>.+)\.(?P<pid>\d+)-[0-9a-f]+{re.escape(TEMPORARY_SUFFIX)}$")

# The boot time is known to the second; file times follow the clock of the file server.
_SLACK_S = 2.0


def is_leftover(path: Path) -> bool:
    """Tells whether a temporary file belongs to no live process of this machine.

    A writer on another machine looks the same; a caller that removes such a file holds the slide's claim, or
    knows that the file is old.
    """
    match = _TEMPORARY.match(path.name)
    if match is None:
        return False
    try:
        written_s = path.stat().st_mtime
    except FileNotFoundError:
        return False
    return not lived_at(int(match["pid"]), written_s)


def remove_leftovers(final: Path) -> None:
    """Removes temporary files or folders of ``final`` that dead processes left; the caller holds its claim.

    A container that starts again gives the same process numbers to others: what bears our own number or is
    old is left over too.
    """
    for path in _temporary_files(final.parent, f".{glob.escape(final.name)}.*"):
        with contextlib.suppress(OSError):
            match = _TEMPORARY.match(path.name)
            if match is None or match["final"] != final.name:
                continue
            ours = int(match["pid"]) == os.getpid()
            if ours or is_leftover(path) or time.time() - path.stat().st_mtime > _OLD_S:
                _remove(path)


def clean_folder(folder: Path) -> None:
    """Removes temporary files that dead processes left in a folder to which one job writes at a time."""
    for path in _temporary_files(folder, ".*"):
        if is_leftover(path):
            with contextlib.suppress(OSError):
                _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _temporary_files(folder: Path, pattern: str) -> list[Path]:
    try:
        return list(folder.glob(f"{pattern}{TEMPORARY_SUFFIX}"))
    except OSError:
        return []


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
    """Tells whether a process that lives now was alive at an earlier moment.

    A number is soon given to another process, and to a thread as well: one that started later is not meant.

    Args:
        process_id: Its number.
        moment_s: Seconds since the epoch, for example when a file was last written.

    Returns:
        False when it is gone, a zombie, or younger. Where the system has no start times (no ``/proc``), True
        for any process of that number.
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
