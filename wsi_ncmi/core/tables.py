"""Tables read as text, from CSV and Excel: nothing is turned into a number, every complaint knows its row."""

import csv
import datetime
import difflib
import io
import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.values import is_empty, tidy

SPREADSHEETS = (".xlsx", ".xlsm")
_MAX_BYTES = 500 * 2**20  # unpacked; a table of labels is far below, a zip bomb far above
_ZEROS = re.compile(r"0+")


def sheet_rows(path: Path, sheet: str | None = None) -> Iterator[tuple[int, list[str]]]:
    """Reads a sheet, cell by cell as text.

    Whole numbers lose nothing (``7`` stays ``7``; with the cell format ``000`` it is ``007``, as Excel shows
    it), other numbers and dates are written out, formulas give the value that was saved with them.

    Args:
        path: The workbook.
        sheet: Name of the sheet; None takes the only one that holds anything.

    Yields:
        Row number, counted from 1, and its cells.

    Raises:
        InputError: openpyxl is not installed, the file is no workbook or too large, there is no such sheet,
            or several hold something and none was named.
    """
    try:
        from openpyxl import load_workbook
    except ImportError as error:
        raise InputError(
            f"{path} is a spreadsheet; install openpyxl (pip install 'wsi-ncmi[excel]') or save it as "
            "'CSV UTF-8'."
        ) from error
    try:
        with zipfile.ZipFile(path) as packed:
            size = sum(item.file_size for item in packed.infolist())
        if size > _MAX_BYTES:
            raise InputError(f"{path} unpacks to {size / 2**20:.0f} MiB; save the table as 'CSV UTF-8'.")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # drop-down lists and colours that openpyxl does not keep
            workbook = load_workbook(path, read_only=True, data_only=True)
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror or error}).") from error
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path} is no spreadsheet ({error}); save the table as 'CSV UTF-8'.") from error
    try:
        tables = [found for found in workbook.worksheets if _holds_anything(found)]
        yield from _cells(_chosen(path, tables, sheet))
    finally:
        workbook.close()


def _chosen(path: Path, tables: list[Any], sheet: str | None) -> Any:
    names = ", ".join(table.title for table in tables)
    if sheet is not None:
        found = next((table for table in tables if table.title == sheet), None)
        if found is None:
            raise InputError(f"{path} has no sheet {sheet!r} with rows; it has: {names or 'none'}.")
        return found
    if not tables:
        raise InputError(f"{path} is empty; it needs a header and rows.")
    if len(tables) > 1:
        raise InputError(
            f"{path} has several sheets ({names}); name one, as in {path}?sheet={tables[0].title}."
        )
    return tables[0]


def _holds_anything(table: Any) -> bool:
    return any(value is not None for row in table.iter_rows(values_only=True) for value in row)


def _cells(table: Any) -> Iterator[tuple[int, list[str]]]:
    for number, row in enumerate(table.iter_rows(), start=1):
        yield number, [_text(cell) for cell in row]


def _text(cell: Any) -> str:
    value = cell.value
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int | float) and float(value).is_integer():
        text = str(int(value))
        zeros = _ZEROS.fullmatch(str(cell.number_format or ""))
        return text.zfill(len(zeros[0])) if zeros else text
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    return str(value)


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
    """One row.

    Attributes:
        line: Its line in the file; the header is 1.
        values: Column → text, tidy.
        first: The first cell.
    """

    line: int
    values: dict[str, str]
    first: str = ""

    def __getitem__(self, column: str) -> str:
        """The text of a column, ``""`` where the row is short or says "no value" (``NA``, ``-``, …)."""
        value = self.values.get(column, "")
        return "" if is_empty(value) else value

    @property
    def no_values(self) -> str:
        """Texts of the row that mean "no value", for a complaint: `` ('NA' means no value)`` or nothing."""
        found = sorted({value for value in self.values.values() if value and is_empty(value)})
        return (
            f" ({' and '.join(map(repr, found))} mean{'s' if len(found) == 1 else ''} no value)"
            if found
            else ""
        )


@dataclass(frozen=True)
class Table:
    """A CSV in memory."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]

    def require(self, columns: Iterable[str], advice: str = "") -> None:
        """Makes sure that columns exist.

        Args:
            columns: Their names.
            advice: What else the user may do, behind the message.

        Raises:
            InputError: Some are missing; names them all, the columns there are and the nearest ones.
        """
        missing = [column for column in columns if column not in self.columns]
        if missing:
            raise InputError(
                f"{self.path} lacks the column{'s' * (len(missing) > 1)} {', '.join(map(repr, missing))} "
                f"(it has: {', '.join(self.columns)}){''.join(map(self.hint, missing))}{advice}."
            )

    def likely(self, column: str) -> str:
        """The column that may be meant by a name that isn't there, or the empty string."""
        lowered = {name.casefold(): name for name in self.columns}
        names = [name for name in (column, *_OTHER_NAMES.get(column, ())) if name in lowered]
        return next((lowered[name] for name in names or difflib.get_close_matches(column, lowered, n=1)), "")

    def hint(self, column: str) -> str:
        """``; did you mean 'x'? Rename it to 'column'`` or the empty string."""
        likely = self.likely(column)
        return f"; did you mean {likely!r}? Rename it to {column!r}" if likely else ""

    def problem(self, row: TableRow, column: str, what: str) -> InputError:
        """The error of one cell: file, row, column, value and what to do."""
        return InputError(
            f"{self.path}, row {row.line}, column {column!r}, value {row.values.get(column, '')!r}: {what}."
        )


def read_table(path: Path, sheet: str | None = None) -> Table:
    """Reads a table: a CSV, or an Excel workbook.

    A CSV is in UTF-8, or in UTF-16 with a byte-order mark (Excel's "Unicode text"), and separated by commas,
    semicolons or tabs; Excel's first line ``sep=;`` is heeded. Blank lines are skipped; texts are made tidy,
    but nothing is converted, so ``007`` stays ``007``.

    Args:
        path: The file.
        sheet: Of a workbook: the sheet; None takes the only one that holds anything.

    Raises:
        InputError: No such file, not Unicode text, no header, a column name twice, a row with more cells than
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
        cells = [tidy(cell) for cell in cells]
        if not any(cells):
            continue
        if not columns:
            columns = _checked_header(path, cells)
        else:
            rows.append(_row(path, line, columns, cells))
    if not rows:
        raise InputError(f"{path} has a header but no rows.")
    return Table(path, columns, tuple(rows))


def read_text(path: Path) -> str:
    """The text of a table or list, in UTF-8 or, with a byte-order mark, UTF-16.

    Raises:
        InputError: It can't be read, or is no such text.
    """
    try:
        data = path.read_bytes()
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 text (byte {error.start}); save the table as 'CSV UTF-8'."
        ) from error
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}).") from error
    if "\0" in text:
        raise InputError(f"{path} is a binary file, not a CSV; save the table as 'CSV UTF-8'.")
    return text


_SEPARATOR_LINE = re.compile(r"sep=(.)\s*?\r?\n")
_QUOTED = re.compile(r'"[^"]*"')


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    text = read_text(path)
    first = _SEPARATOR_LINE.match(text)
    header = next((line for line in text[first.end() if first else 0 :].splitlines() if line.strip()), "")
    if not header:
        raise InputError(f"{path} is empty; it needs a header and rows.")
    separator = first[1] if first else max(_SEPARATORS, key=_QUOTED.sub("", header).count)
    # Not splitlines(): a cell may hold characters that it takes for ends of lines.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        for number, cells in enumerate(reader):
            if number or not first:
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
