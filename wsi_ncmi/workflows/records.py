"""``run.json``: configuration, versions, hardware and hashes of a run, without any absolute path."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import write_json
from wsi_ncmi.core.provenance import collect_provenance

__all__ = ["read_record", "relative_paths", "write_record"]

_SCHEMA = "wsi-ncmi-run/1"


def write_record(path: Path, *, config: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Writes ``run.json``.

    Args:
        path: Where to.
        config: The options in force; absolute paths in it are cut to their last part.
        more: Further JSON-ready entries (hashes, seeds, counts).

    Returns:
        What was written.
    """
    record = {
        "schema": _SCHEMA,
        "provenance": collect_provenance(),
        "config": relative_paths(config),
        **relative_paths(more),
    }
    write_json(path, record)
    return record


def read_record(path: Path) -> dict[str, Any]:
    """Reads a ``run.json``; an absent file gives an empty record.

    Raises:
        InputError: It is no such file.
    """
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["schema"] != _SCHEMA:
            raise InputError(f"{path} has the schema {record['schema']!r}; this version reads {_SCHEMA!r}.")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} can't be read as a run record ({error}).") from error
    return dict(record)


def relative_paths(value: Any) -> Any:
    """Makes a value JSON-ready and cuts absolute paths to their last part: folders name people and hosts."""
    if isinstance(value, Mapping):
        return {str(key): relative_paths(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [relative_paths(item) for item in value]
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, str):
        if "?" in value:  # ``stamp:clini.csv?slides=/home/me/slide.csv``: labels with settings
            file, _, settings = value.partition("?")
            return f"{relative_paths(file)}?{re.sub(r'(?<==)/[^&]*/(?=[^&/]+)', '…/', settings)}"
        head, colon, tail = value.partition(":")
        path = Path(tail) if colon and Path(tail).is_absolute() else Path(value)
        if path.is_absolute():
            return f"{head}:…/{path.name}" if colon and not value.startswith("/") else f"…/{path.name}"
    return value
