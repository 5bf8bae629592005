"""The output's storage: its faults as errors of their own, and temporary files of dead processes."""

import contextlib
import errno
import glob
import os
import re
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from wsi_ncmi.core.errors import JobStoppedError
from wsi_ncmi.core.files import TEMPORARY_SUFFIX

_PLACES: dict[Path, tuple[int, int]] = {}
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM)


@contextlib.contextmanager
def translate_os_errors(path: Path) -> Iterator[None]:
    """Turns any ``OSError`` of the block, which writes ``path``, into one sentence for the user.

    Raises:
        JobStoppedError: The disk is full, read-only or gone: no other slide would fare better.
    """
    try:
        yield
    except OSError as error:
        where = path.parent
        resume = "start the same command again, what is done is kept"
        reason = error.strerror or str(error)
        if error.errno in _FULL:
            message = (
                f"There is no space left to write {path.name} in {where} ({reason}); free some and {resume}."
            )
        elif error.errno in _REFUSED:
            message = (
                f"{where} can't be written to any more ({reason}); restore its permissions and {resume}."
            )
        else:
            message = f"{path.name} can't be written in {where} ({reason}); restore the folder and {resume}."
        raise JobStoppedError(message) from error


def check_same_mount(folder: Path) -> None:
    """Makes sure that an output folder is still the one that it was when this process first asked.

    When a network folder is unmounted its mount point stays, empty and on the local disk: without this check
    the rest of a job would be written there unnoticed.

    Args:
        folder: The output folder; one that does not exist yet is not remembered.

    Raises:
        JobStoppedError: It is gone, or another folder is in its place.
    """
    try:
        status = folder.stat()
    except FileNotFoundError:
        if folder in _PLACES:
            raise JobStoppedError(
                f"The output folder {folder} is gone; mount it again and start the same command again, what "
                "is done is kept."
            ) from None
        return
    except OSError as error:
        raise JobStoppedError(
            f"The output folder {folder} can't be reached any more ({error.strerror}); mount it again and "
            "start the same command again, what is done is kept."
        ) from error
    place = (status.st_dev, status.st_ino)
    if _PLACES.setdefault(folder, place) != place:
        del _PLACES[folder]  # who starts again means the folder that is there then
        raise JobStoppedError(
            f"Another folder stands where the output folder {folder} was when the job began; mount the right "
            "one again and start the same command again, what is done is kept."
        )


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
    """Removes temporary files of ``final`` that dead processes left; the caller holds its claim.

    A container that starts again gives the same process numbers to others: what bears our own number or is
    old is left over too.
    """
    with contextlib.suppress(OSError):
        for path in final.parent.glob(f".{glob.escape(final.name)}.*{TEMPORARY_SUFFIX}"):
            match = _TEMPORARY.match(path.name)
            if match is None or match["final"] != final.name:
                continue
            ours = int(match["pid"]) == os.getpid()
            if ours or is_leftover(path) or time.time() - path.stat().st_mtime > _OLD_S:
                path.unlink(missing_ok=True)


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
