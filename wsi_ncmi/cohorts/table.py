"""Reading a table as text: nothing is turned into a number, and every complaint knows its row."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from wsi_ncmi.cohorts.spreadsheet import SPREADSHEETS, sheet_rows
from wsi_ncmi.core.errors import InputError

__all__ = ["Table", "TableRow", "read_table"]

_SEPARATORS = (",", ";", "\t")
# What other tools call our columns; used for hints only, never taken silently.
_OTHER_NAMES = {
    "slide_id": ("slide", "slide_name", "slideid", "image", "image_id", "filename", "file", "wsi", "name"),
    "case_id": ("patient", "patient_id", "case", "caseid", "patientid", "subject", "subject_id", "pid"),
    "label": ("class", "target", "subtype", "category", "diagnosis", "stage", "y"),
    "centre": ("site", "hospital", "institution"),
}


@dataclass(frozen=True)
class TableRow:
    """One row: column → trimmed text, its line in the file (the header is 1), its first cell."""

    line: int
    values: dict[str, str]
    first: str = ""

    def __getitem__(self, column: str) -> str:
        """The text of a column, ``""`` where the row is short."""
        return self.values.get(column, "")


@dataclass(frozen=True)
class Table:
    """A CSV in memory."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]

    def require(self, columns: Iterable[str]) -> None:
        """Makes sure that columns exist.

        Raises:
            InputError: One is missing; names the columns there are and the nearest one.
        """
        for column in columns:
            if column not in self.columns:
                raise InputError(
                    f"{self.path} lacks the column {column!r} (it has: {', '.join(self.columns)})"
                    f"{self.hint(column)}."
                )

    def hint(self, column: str) -> str:
        """``; did you mean 'x'? Rename it to 'column'`` or the empty string."""
        lowered = {name.lower(): name for name in self.columns}
        candidates = [
            lowered[name] for name in (column, *_OTHER_NAMES.get(column, ())) if name in lowered
        ] or [lowered[name] for name in difflib.get_close_matches(column, lowered, n=1)]
        return f"; did you mean {candidates[0]!r}? Rename it to {column!r}" if candidates else ""

    def problem(self, row: TableRow, column: str, what: str) -> InputError:
        """The error of one cell: file, row, column, value and what to do."""
        return InputError(f"{self.path}, row {row.line}, column {column!r}, value {row[column]!r}: {what}.")


def read_table(path: Path, sheet: str | None = None) -> Table:
    """Reads a table: a CSV in UTF-8 (with or without byte-order mark), or an Excel workbook.

    A CSV is separated by commas, semicolons or tabs. Blank lines are skipped; nothing is converted, so
    ``007`` stays ``007``.

    Args:
        path: The file.
        sheet: Of a workbook: the sheet; None takes the only one that holds anything.

    Raises:
        InputError: No such file, not UTF-8 text, no header, a column name twice, a row with more cells than
            the header, or see ``sheet_rows``.
    """
    if path.suffix.lower() in SPREADSHEETS:
        numbered = sheet_rows(path, sheet)
    elif sheet is not None:
        raise InputError(f"{path} is no workbook, so it has no sheet {sheet!r}; leave out sheet=.")
    else:
        numbered = _csv_rows(path)
    columns: tuple[str, ...] = ()
    rows: list[TableRow] = []
    for line, cells in numbered:
        cells = [cell.strip() for cell in cells]
        if not any(cells):
            continue
        if not columns:
            columns = _checked_header(path, cells)
        else:
            rows.append(_row(path, line, columns, cells))
    if not rows:
        raise InputError(f"{path} has a header but no rows.")
    return Table(path, columns, tuple(rows))


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 text (byte {error.start}); save the table as 'CSV UTF-8'."
        ) from error
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}).") from error
    if "\0" in text:
        raise InputError(f"{path} is a binary file, not a CSV; save the table as 'CSV UTF-8'.")
    header_line = next((line for line in text.splitlines() if line.strip()), "")
    if not header_line:
        raise InputError(f"{path} is empty; it needs a header and rows.")
    separator = max(_SEPARATORS, key=header_line.count)
    reader = csv.reader(text.splitlines(keepends=True), delimiter=separator, strict=True)
    try:
        for cells in reader:
            yield reader.line_num, cells
    except csv.Error as error:
        raise InputError(f"{path}, row {reader.line_num}: not a valid CSV ({error}).") from error


def _checked_header(path: Path, cells: Sequence[str]) -> tuple[str, ...]:
    named = [cell for cell in cells if cell]
    twice = sorted({name for name in named if named.count(name) > 1})
    if twice:
        raise InputError(f"{path} has the column {twice[0]!r} twice; remove one.")
    return tuple(cells)


def _row(path: Path, line: int, columns: tuple[str, ...], cells: Sequence[str]) -> TableRow:
    if len(cells) > len(columns) and any(cells[len(columns) :]):
        raise InputError(
            f"{path}, row {line}: {len(cells)} cells where the header has {len(columns)}; "
            "put quotes around values that contain the separator."
        )
    return TableRow(line, {name: cell for name, cell in zip(columns, cells, strict=False) if name}, cells[0])
