"""The resume checkpoint ``last.ckpt``: everything that the rest of a run depends on, whole or absent."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import atomic_path

__all__ = ["LAST", "read_resume", "write_resume"]

LAST = "last.ckpt"
_SCHEMA = "wsi-ncmi-resume/2"
_UNREADABLE = (
    OSError,
    RuntimeError,
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)


def write_resume(folder: Path, identity: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Writes ``last.ckpt`` atomically.

    Args:
        folder: The run's folder.
        identity: What makes the run (JSON-ready).
        state: Tensors, numbers, strings, and lists and dicts of them.
    """
    with atomic_path(folder / LAST) as temporary:
        torch.save({"schema": _SCHEMA, "identity": dict(identity), "state": dict(state)}, temporary)


def read_resume(folder: Path) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Reads ``last.ckpt`` without unpickling any code (``weights_only``).

    Returns:
        Identity and state, or ``None`` when there is no checkpoint.

    Raises:
        InputError: The file is no resume checkpoint of this version.
    """
    path = folder / LAST
    if not path.exists():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["schema"] != _SCHEMA:
            raise ValueError(f"schema {content['schema']!r}")
        return content["identity"], content["state"]
    except _UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path} isn't a resume checkpoint that this version can read ({reason}); "
            "remove it to start the run again."
        ) from error
