"""Faults of the output's storage as errors of their own."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from wsi_ncmi.core.errors import JobStoppedError

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
    here = folder.absolute()  # "out" is another folder once the process has changed its own
    try:
        status = folder.stat()
    except FileNotFoundError:
        if here in _PLACES:
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
    if _PLACES.setdefault(here, place) != place:
        del _PLACES[here]  # who starts again means the folder that is there then
        raise JobStoppedError(
            f"Another folder stands where the output folder {folder} was when the job began; mount the right "
            "one again and start the same command again, what is done is kept."
        )
