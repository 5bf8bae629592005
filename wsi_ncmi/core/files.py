"""Files that exist only when they are whole: temporary name in the same folder, fsync, rename."""

import contextlib
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from wsi_ncmi.core.errors import InputError

TEMPORARY_SUFFIX = ".partial"
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")


@contextlib.contextmanager
def atomic_path(final: Path) -> Iterator[Path]:
    """Gives a temporary path beside ``final`` and publishes it under that name when the block succeeds.

    The content is fsynced before the rename and the folder after it, so a file with the final name is
    whole even after ``kill -9`` or power loss. When the block raises, the temporary file is removed.

    Args:
        final: The name under which the file is to appear.

    Yields:
        The temporary path to write to (same folder, suffix ``.partial``).

    Raises:
        OSError: The folder is not writable or the disk is full.
    """
    temporary = final.with_name(f".{final.name}.{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
    try:
        yield temporary
        descriptor = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, final)
        _sync_folder(final.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    # Network file systems may refuse to open a folder for fsync; the rename itself has happened.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a mapping as indented JSON atomically; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def existing_folder(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    folder = folder.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def check_folder(path: Path) -> None:
    """Finds out whether an output folder could be made and written to; makes nothing.

    Raises:
        InputError: It couldn't, with the reason.
    """
    parent = existing_folder(path)
    if not parent.is_dir():
        raise _not_writable(path, f"{parent.name} is a file")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise _not_writable(path, "Permission denied")


def ensure_folder(path: Path) -> Path:
    """Makes an output folder and proves that it can be written to.

    Args:
        path: The folder; parents are made as needed.

    Returns:
        The same path.

    Raises:
        InputError: It can't be made or written to, with the reason.
    """
    probe = path / f".wsi-ncmi-write-test-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise _not_writable(path, error.strerror or str(error)) from error
    return path


def _not_writable(path: Path, reason: str) -> InputError:
    return InputError(
        f"The output folder {path} can't be written to ({reason}); "
        "choose another folder with --out or change its permissions."
    )


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes as a hex string."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def path_safe(name: str) -> str:
    """Replaces every character outside ``[A-Za-z0-9._-]`` with ``_`` (the rule of the CLI contract)."""
    return _UNSAFE.sub("_", name)
