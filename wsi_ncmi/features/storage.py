"""Faults of the output's storage, which stop a job, told from faults of one slide, which don't."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from wsi_ncmi.errors import JobStoppedError

__all__ = ["storing"]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM)


@contextlib.contextmanager
def storing(path: Path) -> Iterator[None]:
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
