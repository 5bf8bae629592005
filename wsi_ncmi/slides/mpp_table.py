"""The user's table of resolutions: a CSV with the columns ``slide_id,mpp``."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.slides.mpp import COARSEST_MPP, FINEST_MPP, is_believable_mpp
from wsi_ncmi.slides.names import slide_id_of

__all__ = ["read_mpp_table"]

_COLUMNS = ("slide_id", "mpp")


def read_mpp_table(path: Path) -> dict[str, float]:
    """Reads microns per level-0 pixel by slide.

    Args:
        path: CSV in UTF-8 with a header; further columns are ignored. Ids may carry the slide's extension.

    Returns:
        Slide id without extension → µm per pixel.

    Raises:
        InputError: The file can't be read, a column is missing, a value is no believable resolution, or a
            slide stands there twice with different values; the message names file, row and value.
    """
    table: dict[str, float] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            rows = csv.DictReader(handle)
            header = [name.strip() for name in rows.fieldnames or ()]
            missing = [name for name in _COLUMNS if name not in header]
            if missing:
                raise InputError(
                    f"The mpp table {path.name} has the columns {', '.join(header) or '(none)'} but needs "
                    f"{' and '.join(_COLUMNS)}; add {' and '.join(missing)} (separated by commas)."
                )
            rows.fieldnames = header
            for row in rows:
                _add(table, row, f"{path.name}, line {rows.line_num}")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(
            f"The mpp table {path.name} can't be read ({reason}); give a UTF-8 CSV file."
        ) from error
    return table


def _add(table: dict[str, float], row: dict[str, str | None], where: str) -> None:
    name, text = (row["slide_id"] or "").strip(), (row["mpp"] or "").strip()
    if not name:
        raise InputError(f"{where}: slide_id is empty; name the slide.")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not is_believable_mpp(value):
        raise InputError(
            f"{where}: mpp of {name} is {text!r}; "
            f"give microns per pixel above {FINEST_MPP} and at most {COARSEST_MPP:g}."
        )
    slide_id = slide_id_of(name)
    if table.setdefault(slide_id, value) != value:
        raise InputError(f"{where}: {name} has {text} here and {table[slide_id]:g} above; keep one of them.")
