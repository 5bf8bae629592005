"""Errors a user can reach, each one sentence: what is wrong, where, and what to do; reasons without paths."""

import errno
import re
from pathlib import Path

from wsi_ncmi.core.values import printable


class WsiNcmiError(Exception):
    """Base of all errors that are meant for the user's eyes."""


class InputError(WsiNcmiError):
    """Usage, configuration or input is wrong and nothing was started (exit code 2)."""


class IdentityConflictError(InputError):
    """A feature file of another identity stands where a new one would be written (exit code 2)."""


class JobStoppedError(WsiNcmiError):
    """A running job has to stop, for example because the disk is full; it can be resumed (exit code 1)."""


class SlideError(WsiNcmiError):
    """One slide can't be processed: it gets a ledger row and the rest of the job continues."""


class SlideOpenError(SlideError):
    """No reader can open the file."""


class SlideReadError(SlideError):
    """A region of an open slide can't be read."""


class MissingMppError(SlideError):
    """No link of the resolution chain gives the slide's microns per pixel."""


class UpsampleError(SlideError):
    """The target resolution is finer than the slide's own and upsampling was not allowed."""


class TrainingError(WsiNcmiError):
    """One training run has to stop: its loss or gradient isn't finite, or its process died (exit code 1)."""


def counted(count: int, noun: str) -> str:
    """``1 slide``, ``2 slides``: a count with its noun, for messages."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


_STORAGE = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE,
    errno.ENOTCONN,
)  # fmt: skip


def storage_fault(error: BaseException) -> str:
    """A sentence for an error of the storage: full, read-only or gone; empty for other errors."""
    if not isinstance(error, OSError) or error.errno not in _STORAGE:
        return ""
    where = Path(str(error.filename)).parent if error.filename else "The output folder"
    return (
        f"{where} can't be read or written any more ({error.strerror}); free space or restore the folder, "
        "and start the same command again, what is done is kept."
    )


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its class where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


_LONGEST = 300


def plain_reason(error: BaseException, path: Path) -> str:
    """The reason of an exception as one line in which a file is named, never located.

    Ledgers and inventories are passed on to other people; absolute paths in them name users and
    machines, and readers like to put them into their messages.

    Args:
        error: What was raised.
        path: The file that was being handled; its folder is removed from the text.

    Returns:
        One line of at most 300 characters, without a full stop at its end.
    """
    text = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
    if isinstance(error, MemoryError):
        text = text or "not enough memory"
    for folder in {str(path.parent), str(path.absolute().parent), str(_resolved(path).parent)} - {".", "/"}:
        text = text.replace(folder + "/", "")
    # Any other absolute path keeps its last component only (companion files, links).
    text = re.sub(r"(?<![\w/])/(?:[^\s/'\":]+/)+", "", text)
    text = printable(" ".join(text.split())).rstrip(".") or type(error).__name__
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # a loop of links
        return path
