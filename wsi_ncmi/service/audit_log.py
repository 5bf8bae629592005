"""Audit trail: append-only JSON lines, each of which carries the hash of the one before it.

A line ends with ``"sha256"``, the SHA-256 of the line without that field (``{…, "prev": "…"}``); ``"prev"``
is that of the line before, also over files. Who changes, removes or inserts a line breaks the chain there;
that its end was cut off is found by a hash that was noted elsewhere.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from wsi_ncmi import __version__
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import ensure_folder, parse_json

OPERATOR_VARIABLE = "WSI_NCMI_OPERATOR"
"""Names who is responsible for the service, in every line."""

_SCHEMA = "wsi-ncmi-audit/1"
_START = "0" * 64
_MAX_BYTES = 64 << 20
_NAME = re.compile(r"audit-(\d{6})\.jsonl")
_SEAL = re.compile(rb', "sha256": "([0-9a-f]{64})"\}\n')
_LOCK = "lock"


@dataclass(frozen=True)
class AuditLogCheck:
    """What a chain was found to be.

    Attributes:
        entries: Whole entries up to the end, or to the fault.
        files: Files of the chain.
        head: SHA-256 of the last of these entries; note it elsewhere to know later that nothing was cut off.
        problem: The first fault with file and line; empty where the chain is whole.
    """

    entries: int
    files: int
    head: str
    problem: str = ""


class _BrokenChainError(Exception):
    """A line that doesn't follow from the one before."""


class AuditLog:
    """The one writer of an audit trail.

    What a kill tore is cut off when the log is opened: nobody was told that it was written.

    Args:
        folder: Holds ``audit-000001.jsonl`` and so on; it is made when missing.
        on_entry: Is given every entry that is there.
        max_bytes: Size at which the next file begins.

    Attributes:
        entries: Entries so far.
        head: SHA-256 of the last one.

    Raises:
        InputError: Another process writes to it, or its chain is broken.
    """

    def __init__(
        self,
        folder: Path,
        on_entry: Callable[[Mapping[str, Any]], None] | None = None,
        max_bytes: int = _MAX_BYTES,
    ) -> None:
        self._folder, self._max_bytes = ensure_folder(folder), max_bytes
        self._lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        self._descriptor = -1
        try:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(
                    f"Another process writes to the audit trail {folder}; end it, or choose another folder "
                    "with --audit-log."
                ) from error
            files = _files(folder)
            self.entries, self.head = 0, _START
            try:
                for entry in _read(files, heal=True):
                    self.entries, self.head = entry["seq"], entry["sha256"]
                    if on_entry is not None:
                        on_entry(entry)
            except _BrokenChainError as error:
                raise InputError(
                    f"The audit trail {folder} is broken: {error}; keep it for the inquiry, and choose "
                    "another folder with --audit-log."
                ) from error
            self._open(files[-1] if files else folder / "audit-000001.jsonl")
        except BaseException:
            self.close()
            raise

    def append(self, event: str, **content: Any) -> Mapping[str, Any]:
        """Adds an entry and waits until it is on the disk.

        Args:
            event: What happened.
            **content: JSON-ready.

        Returns:
            The entry.

        Raises:
            OSError: It can't be written; the log is as it was before.
        """
        entry = {
            "schema": _SCHEMA,
            "seq": self.entries + 1,
            "utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "event": event,
            "operator": os.environ.get(OPERATOR_VARIABLE, ""),
            "software": f"wsi-ncmi {__version__}",
            **content,
            "prev": self.head,
        }
        body = json.dumps(entry, allow_nan=False)
        seal = hashlib.sha256(body.encode()).hexdigest()
        line = f'{body[:-1]}, "sha256": "{seal}"}}\n'.encode()
        size = os.fstat(self._descriptor).st_size
        if size and size + len(line) > self._max_bytes:
            self._open(self._folder / f"audit-{int(self._path.stem[-6:]) + 1:06d}.jsonl")
            size = 0
        before = self.entries, self.head
        try:
            written = os.write(self._descriptor, line)
            if written < len(line):
                os.write(self._descriptor, line[written:])  # says why: the disk is full
            os.fsync(self._descriptor)
            self.entries, self.head = self.entries + 1, seal
        except BaseException:
            self.entries, self.head = before
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, size)
            raise
        return {**entry, "sha256": seal}

    def _open(self, path: Path) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._path, self._descriptor = path, descriptor
        folder = os.open(self._folder, os.O_RDONLY)
        with contextlib.suppress(OSError):  # network file systems may refuse it
            os.fsync(folder)
        os.close(folder)

    def close(self) -> None:
        """Lets others write."""
        for descriptor in (self._descriptor, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._descriptor = self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_audit_log(folder: Path, head: str = "") -> AuditLogCheck:
    """Follows the chain from its first line to its last, also while it is written to.

    Args:
        folder: Folder of the audit trail.
        head: A hash that was noted earlier, which must be in the chain; empty = none.

    Raises:
        InputError: There is no audit trail.
    """
    files = _files(folder)
    if not files:
        raise InputError(f"{folder} holds no audit trail (audit-000001.jsonl); name the folder that does.")
    entries, last, found, problem = 0, _START, not head, ""
    try:
        for entry in _read(files):
            entries, last = entry["seq"], entry["sha256"]
            found = found or last == head
    except _BrokenChainError as error:
        problem = str(error)
    if not problem and not found:
        problem = f"no entry has the hash {head}: the end was cut off, or all of it is another trail"
    return AuditLogCheck(entries, len(files), last, problem)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("audit-*.jsonl") if _NAME.fullmatch(path.name))


def _read(files: list[Path], *, heal: bool = False) -> Iterator[dict[str, Any]]:
    """The entries of a chain; a torn last line is left out (``heal``: cut off).

    Raises:
        _BrokenChainError: One doesn't follow.
    """
    seq, prev = 0, _START
    for number, path in enumerate(files, 1):
        if path.name != f"audit-{number:06d}.jsonl":
            raise _BrokenChainError(f"audit-{number:06d}.jsonl is missing")
        position = 0
        with path.open("rb") as handle:
            for row, line in enumerate(handle, 1):
                if not line.endswith(b"\n") and path is files[-1]:
                    if heal:
                        os.truncate(path, position)
                    return
                position += len(line)
                entry = _entry(line, seq + 1, prev, f"{path.name}, line {row}")
                seq, prev = entry["seq"], entry["sha256"]
                yield entry


def _entry(line: bytes, seq: int, prev: str, where: str) -> dict[str, Any]:
    seal = _SEAL.search(line)
    if seal is None or seal.end() != len(line):
        raise _BrokenChainError(f"{where} is no entry")
    if hashlib.sha256(line[: seal.start()] + b"}").hexdigest() != seal[1].decode():
        raise _BrokenChainError(f"{where} was changed: its hash is another")
    try:
        entry: dict[str, Any] = parse_json(line)
        if entry["schema"] != _SCHEMA:
            raise _BrokenChainError(f"{where} has the schema {entry['schema']!r}, not {_SCHEMA!r}")
        if entry["prev"] != prev or entry["seq"] != seq:
            raise _BrokenChainError(
                f"{where} does not follow the line before it: lines were removed, added or put elsewhere"
            )
    except (ValueError, KeyError, TypeError) as error:
        raise _BrokenChainError(f"{where} is no entry ({error})") from error
    return entry
