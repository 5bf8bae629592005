"""Tables in Excel's format: hospitals keep theirs in it, and so does STAMP."""

from __future__ import annotations

import datetime
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wsi_ncmi.core.errors import InputError

__all__ = ["SPREADSHEETS", "sheet_rows"]

SPREADSHEETS = (".xlsx", ".xlsm")
_MOST_BYTES = 500 * 2**20  # unpacked; a table of labels is far below, a zip bomb far above
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
        if size > _MOST_BYTES:
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
    return str(value).strip()
