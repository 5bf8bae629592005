"""Ledger of a job: one row a slide, none lost at a kill, one sorted CSV at the end."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import parse_json, write_text
from wsi_ncmi.core.values import printable
from wsi_ncmi.tissue import ARTIFACT_KINDS

if TYPE_CHECKING:
    from wsi_ncmi.extraction.task import SlideTask

_LOG = logging.getLogger(__name__)

ALREADY_EXTRACTED = "already extracted"
"""Reason of a row whose file was there; more may follow after a semicolon."""

CLAIMED = "another process is extracting it"
"""Reason of a row whose slide another live job holds; ask again later."""

_STATUSES = ("done", "skipped", "failed")


@dataclass(frozen=True)
class LedgerRow:
    """Result of one slide.

    Attributes:
        slide_id: Id of the slide.
        path: Path below the slide folder, with ``/``.
        status: ``done``, ``skipped`` (a file of the same identity was there) or ``failed``.
        reason: One sentence; empty when there is nothing to say.
        tiles: SlideEmbedding tiles.
        failed_reads: Selected tiles that could not be read.
        seconds: Time spent.
        reader: Reader that gave the pixels, or empty.
        mpp: µm per level-0 pixel along x, or None.
        mpp_source: Link of the resolution chain that gave it, or empty.
        artifact_tiles: Tiles that the artefact rule dropped.
        features_set: Set of features that this row is about; empty for the main one.
        artifacts_found: Tiles in which artefacts were found, whether they were kept or dropped.
        pen, fold, border, blur: Those with each kind (of a slide that was extracted before: the kept ones).
    """

    slide_id: str
    path: str
    status: Literal["done", "skipped", "failed"]
    reason: str = ""
    tiles: int = 0
    failed_reads: int = 0
    seconds: float = 0.0
    reader: str = ""
    mpp: float | None = None
    mpp_source: str = ""
    artifact_tiles: int = 0
    features_set: str = ""
    artifacts_found: int = 0
    pen: int = 0
    fold: int = 0
    border: int = 0
    blur: int = 0


_COLUMNS = tuple(field.name for field in fields(LedgerRow))
_COUNTS = ("artifact_tiles", "artifacts_found", *ARTIFACT_KINDS)
# Ledgers of earlier versions lack these; their slides had no such tiles and no further sets.
_LATER: dict[str, Any] = {**dict.fromkeys(_COUNTS, 0), "features_set": ""}
_KINDS: dict[str, type] = {
    "tiles": int, "failed_reads": int, "seconds": float, "mpp": float, **dict.fromkeys(_COUNTS, int),
}  # fmt: skip


def failed_row(task: SlideTask, reason: str, seconds: float = 0.0) -> LedgerRow:
    """The row of a slide that could not be processed."""
    record = task.record
    return LedgerRow(
        slide_id=record.slide_id,
        path=record.path,
        status="failed",
        reason=printable(reason),
        seconds=seconds,
        reader=record.reader,
        mpp=record.mpp_x,
        mpp_source=record.mpp_source,
        features_set=task.features_set,
    )


def write_ledger(rows: Iterable[LedgerRow], path: Path) -> None:
    """Writes ``ledger.csv`` atomically, sorted by slide id.

    Raises:
        OSError: The folder can't be written to.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for row in sorted(rows, key=lambda row: (row.slide_id, row.path)):
        # One line a slide, whatever an error message holds.
        row = replace(row, reason=printable(" ".join(row.reason.split())))
        values = (getattr(row, name) for name in _COLUMNS)
        writer.writerow("" if value is None else value for value in values)
    write_text(path, text.getvalue())


def read_ledger(path: Path) -> tuple[LedgerRow, ...]:
    """Reads ``ledger.csv``.

    Raises:
        InputError: It is missing or no ledger; the message names line and column.
    """
    try:
        with path.open(encoding="utf-8", newline="") as handle:
            text = handle.read()
            if text[-1:] not in ("\n", "\r"):
                raise InputError(f"The ledger {path} can't be read (its end is missing).")
            table = csv.DictReader(io.StringIO(text, newline=""))
            missing = [name for name in _COLUMNS if name not in {*(table.fieldnames or ()), *_LATER}]
            if missing:
                raise InputError(f"{path} is no ledger: the column {missing[0]!r} is missing.")
            return tuple(_row(values, f"{path}, line {table.line_num}") for values in table)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"The ledger {path} can't be read ({error}).") from error


def read_or_rebuild(path: Path, journal: Path, features_set: str = "") -> tuple[LedgerRow, ...]:
    """Rows of a ledger; of one that is damaged, those that the journal kept, with a warning.

    Args:
        path: ``ledger.csv``.
        journal: ``ledger.jsonl`` of the same folder.
        features_set: Set of features that the ledger is of.

    Raises:
        InputError: It is damaged, and the journal has no row of it.
    """
    try:
        return read_ledger(path)
    except InputError as error:
        rows = merge_rows(row for row in read_journal(journal) if row.features_set == features_set)
        if not rows:
            raise
        _LOG.warning("%s It is rebuilt from %s, which has %d slides.", error, journal.name, len(rows))
        return rows


def merge_rows(*groups: Iterable[LedgerRow]) -> tuple[LedgerRow, ...]:
    """One row a slide, the one of the latest group, sorted by slide id (old ledger, journal, new rows).

    The rows are of one set of features.
    """
    merged = {row.slide_id: row for group in groups for row in group}
    return tuple(merged[slide_id] for slide_id in sorted(merged))


class Journal(AbstractContextManager["Journal"]):
    """Ledger rows on disk as they come: a JSON line each, fsynced, appendable by several jobs at once.

    Args:
        path: The file, such as ``<out>/ledger.jsonl``; it is made when missing.

    Raises:
        OSError: It can't be written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
        self._descriptor = os.open(path, flags, 0o644)

    def append(self, row: LedgerRow) -> None:
        """Adds a row and waits until it is on the disk."""
        # A line break first: a line that a kill tore earlier then spoils no other.
        line = "\n" + json.dumps(asdict(row)) + "\n"
        os.write(self._descriptor, line.encode())
        os.fsync(self._descriptor)

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self, *, remove: bool = False) -> None:
        """Closes the file; ``remove`` deletes it (its rows are in the ledger now)."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if remove:
            self.path.unlink(missing_ok=True)


def read_journal(path: Path) -> tuple[LedgerRow, ...]:
    """Rows of a journal in the order of writing; none when there is no file; a torn line is left out."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return ()
    rows = []
    for line in lines:
        try:
            rows.append(_row(parse_json(line), str(path)))
        except (ValueError, InputError, AttributeError):  # a kill in the middle of a write
            continue
    return tuple(rows)


def _row(values: dict[str, Any], where: str) -> LedgerRow:
    found: dict[str, Any] = {}
    if None in values:  # csv's key for what follows the last column
        raise InputError(f"{where} is too long.")
    for name in _COLUMNS:
        value = values.get(name, _LATER.get(name))
        kind = _KINDS.get(name, str)
        try:
            found[name] = None if name == "mpp" and value in (None, "") else kind(value)
            if value is None and name != "mpp":
                raise ValueError("the line is too short")
        except (TypeError, ValueError, OverflowError):
            raise InputError(f"{where}: {name} is {value!r}, which is no {kind.__name__}.") from None
    if found["status"] not in _STATUSES:
        raise InputError(f"{where}: status is {found['status']!r}, not one of {', '.join(_STATUSES)}.")
    return LedgerRow(**found)
