"""Keeps folders of this machine out of a report that may be sent anywhere."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from typing import Any

__all__ = ["without_folders"]

# An absolute path of at least two names inside a sentence: /data/slides/a.svs, C:\slides\a.svs.
_POSIX = re.compile(r"(?<![\w.…/])/(?!/)(?:[^\s/'\"():;,]+/)+(?P<name>[^\s/'\"():;,]*)")
_WINDOWS = re.compile(r"\b[A-Za-z]:\\(?:[^\s\\'\":;,]+\\)*(?P<name>[^\s\\'\":;,]*)")


def without_folders(value: Any) -> Any:
    """Replaces absolute paths by ``…/name``, in text and inside mappings and sequences.

    Args:
        value: Text, path, mapping, sequence, or anything else (returned as it is).

    Returns:
        The same structure; paths become text, tuples become lists.
    """
    if isinstance(value, PurePath):
        return without_folders(str(value))
    if isinstance(value, str):
        whole = PureWindowsPath(value) if _WINDOWS.match(value) else PurePosixPath(value)
        # A value that is a path as a whole may hold blanks; the pattern for sentences would stop there.
        if whole.is_absolute() and "\n" not in value and ": " not in value:
            return f"…/{whole.name}" if whole.name else "…"
        return _WINDOWS.sub(r"…/\g<name>", _POSIX.sub(r"…/\g<name>", value))
    if isinstance(value, Mapping):
        return {str(key): without_folders(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [without_folders(item) for item in value]
    return value
