"""Words for messages that are stored: the reason of a failure without any machine path."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["plain_reason"]

_LONGEST = 300


def plain_reason(error: BaseException, path: Path) -> str:
    """The reason of an exception as one line in which a file is named, never located.

    Ledgers and inventories are passed on to other people; absolute paths in them tell about users and
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
    text = " ".join(text.split()).rstrip(".") or type(error).__name__
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # a loop of links
        return path
