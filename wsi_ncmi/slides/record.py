"""One slide of an inventory, and the table ``slides.csv``."""

import csv
import io
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import write_text
from wsi_ncmi.core.tables import read_text
from wsi_ncmi.core.values import printable


@dataclass(frozen=True)
class SlideRecord:
    """One slide of an inventory.

    Attributes:
        slide_id: The slide's id in this job, unique.
        path: Path below the inventory's root, with ``/``.
        reader: Name of the reader that opens it; empty when none does.
        vendor: The format as the reader names it, for example ``aperio``.
        width_px: Width of level 0 in pixels; 0 when unknown.
        height_px: Height of level 0 in pixels; 0 when unknown.
        n_levels: Number of pyramid levels.
        mpp_x: Microns per level-0 pixel along x, or None.
        mpp_y: The same along y.
        mpp_source: The link of the resolution chain that gave it; empty when none did.
        fingerprint: Content fingerprint in hex; empty when the file can't be read.
        size_bytes: Size of all its files.
        problem: Empty when the slide is usable, else one sentence.
        duplicate_of: The id of the first slide with the same content, or empty.
        remark: What the file holds that is not read, and the like, in sentences; or empty.
        bounds: Left, top, width and height of the scanned area in level-0 pixels where it does not begin at
            0, 0 (MIRAX, SCN), separated by blanks; else empty.
        container_id: Container identifier of a DICOM slide, as it is; else empty, as what follows.
        series_uid: UID of its series.
        study_uid: UID of its study.
        case_id: Pseudonym of its patient, where it was asked for.
        companions: Its further files as paths below the root, with ``//`` between them.
        stamp: Hash of sizes and times of its files when they were read
            (:func:`~wsi_ncmi.slides.identity.stamp_of`).
    """

    slide_id: str
    path: str
    reader: str
    vendor: str
    width_px: int
    height_px: int
    n_levels: int
    mpp_x: float | None
    mpp_y: float | None
    mpp_source: str
    fingerprint: str
    size_bytes: int
    problem: str = ""
    duplicate_of: str = ""
    remark: str = ""
    bounds: str = ""
    container_id: str = ""
    series_uid: str = ""
    study_uid: str = ""
    case_id: str = ""
    companions: str = ""
    stamp: str = field(default="", compare=False)

    def files(self, root: Path) -> Path | tuple[Path, ...]:
        """What :func:`~wsi_ncmi.slides.open_slide` opens: the file, or all files of a DICOM slide.

        Args:
            root: The folder that its paths are relative to, or the one slide.
        """
        path = root if root.is_file() else root / self.path
        if not self.series_uid:  # also in inventories of 0.1
            return path
        base = root.parent if root.is_file() else root
        return path, *(base / name for name in self.companions.split(BETWEEN) if name)

    @property
    def scanned(self) -> tuple[int, int, int, int] | None:
        """``bounds`` as numbers, or None."""
        numbers = [int(text) for text in self.bounds.split()]
        return (numbers[0], numbers[1], numbers[2], numbers[3]) if len(numbers) == 4 else None


BETWEEN = "//"
"""What stands between paths in one cell; no path holds it."""

_COLUMNS = tuple(each.name for each in fields(SlideRecord))
_INTEGERS = ("width_px", "height_px", "n_levels", "size_bytes")
_NUMBERS = ("mpp_x", "mpp_y")
# Columns that inventories of 0.1 lack.
_LATER = ("remark", "bounds", "container_id", "series_uid", "study_uid", "case_id", "companions", "stamp")


def write_slides_csv(records: Iterable[SlideRecord], path: Path) -> None:
    """Writes an inventory atomically: UTF-8, one row a slide, the record's fields as columns.

    Numbers keep full precision; unknown ones are empty.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for record in records:
        if record.problem or record.remark:
            record = replace(record, problem=printable(record.problem), remark=printable(record.remark))
        values = (getattr(record, name) for name in _COLUMNS)
        writer.writerow("" if value is None else value for value in values)
    write_text(path, text.getvalue())


def read_slides_csv(path: Path) -> tuple[SlideRecord, ...]:
    """Reads what :func:`write_slides_csv` wrote.

    Raises:
        InputError: The file can't be read, lacks a column or holds a wrong value; the message names it.
    """
    records = []
    try:
        with io.StringIO(read_text(path), newline="") as handle:
            rows = csv.DictReader(handle, strict=True)
            missing = [name for name in _COLUMNS if name not in (*(rows.fieldnames or ()), *_LATER)]
            if missing:
                raise InputError(
                    f"{path.name} is no slide inventory: it lacks the column {missing[0]}; "
                    "write one with wsi-ncmi inventory."
                )
            for row in rows:
                where = f"{path.name}, line {rows.line_num}"
                present = [name for name in _COLUMNS if name in row]
                records.append(SlideRecord(**{name: _parse(name, row[name], where) for name in present}))
    except csv.Error as error:
        raise InputError(
            f"The slide inventory {path.name} can't be read ({error}); "
            "write a new one with wsi-ncmi inventory."
        ) from error
    count = Counter(record.slide_id for record in records)
    if twice := next((slide_id for slide_id in count if count[slide_id] > 1), None):
        raise InputError(f"{path.name} lists the slide {twice} twice; write the inventory again.")
    return tuple(records)


def _parse(name: str, text: str | None, where: str) -> Any:
    if text is None:
        raise InputError(f"{where}: the row ends before {name}; write the inventory again.")
    if name in _NUMBERS and not text:
        return None
    kind: Callable[[str], Any] = int if name in _INTEGERS else float if name in _NUMBERS else str
    try:
        if name == "bounds" and len([int(part) for part in text.split()]) not in (0, 4):
            raise ValueError
        value = kind(text)
        if kind is not str and not 0 <= value < math.inf:
            raise ValueError
        return value
    except ValueError:
        what = "four numbers" if name == "bounds" else "a number"
        raise InputError(f"{where}: {name} is {text!r}, not {what}; write the inventory again.") from None
