"""Rows of a labels table, those left out, and a finding for each row with a fault."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from wsi_ncmi import slides
from wsi_ncmi.cohorts.cohort import CohortRow
from wsi_ncmi.cohorts.tables import TableRow
from wsi_ncmi.core.errors import InputError


@dataclass(frozen=True)
class LabelledRow:
    """One slide as the source says; ``case_id`` None = the source knows no patient."""

    source: TableRow
    slide_id: str
    case_id: str | None
    label: str
    centre: str = ""


@dataclass(frozen=True)
class LabelTable:
    """All slides of a source.

    Attributes:
        rows: The slides.
        classes: All classes of the task in order; empty = those that occur.
        case_problem: Why there are no reliable patient ids, continuing "FILE …"; empty = there are.
        official_split: Slide id (without extension) → ``train`` | ``validation`` | ``test``.
        notes: Sentences for the report.
        origin: The file whose lines ``rows`` count, where it isn't the table that was named.
    """

    rows: Sequence[LabelledRow]
    classes: tuple[str, ...] = ()
    case_problem: str = ""
    official_split: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    origin: Path | None = None


@dataclass(frozen=True)
class Exclusion:
    """What a list leaves out.

    Attributes:
        name: Name of the list's file.
        entries: Slide ids (without slide extension) and patient ids.
    """

    name: str
    entries: frozenset[str]

    def covers(self, slide_id: str, case_id: str) -> bool:
        """Whether the slide, or its patient, is on the list."""
        return not self.entries.isdisjoint((slides.slide_id_of(slide_id), case_id))

    def unused(self, known: Iterable[str]) -> tuple[str, ...]:
        """Entries that name nothing known, sorted: usually a misspelling."""
        return tuple(sorted(self.entries - set(known)))


def read_exclusion(path: Path) -> Exclusion:
    """Reads a list: a slide or patient in each line (the first cell of a CSV), ``#`` begins a remark.

    Raises:
        InputError: The file can't be read, is not UTF-8 or names nothing.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"The exclusion list {path} can't be read ({error}); save it as UTF-8 text."
        ) from error
    cells = (line.partition("#")[0].partition(",")[0].strip().strip('"') for line in lines)
    entries = frozenset(slides.slide_id_of(cell) for cell in cells if cell not in ("", "slide_id", "case_id"))
    if not entries:
        raise InputError(f"The exclusion list {path} names no slide; write one id in each line.")
    return Exclusion(path.name, entries)


RowKind = Literal[
    "format", "empty", "unknown_class", "conflict", "repeated", "suspect_id", "excluded", "without_slide",
    "without_label",
]  # fmt: skip

_BLANK = frozenset({"", "nan", "NaN"})
# What a spreadsheet makes of a long number, and of a number with a gap in its column.
_DAMAGED = re.compile(r"\d(\.\d+)?E\+\d+|\d+\.0")


@dataclass(frozen=True)
class RowFinding:
    """One thing about one row.

    Attributes:
        kind: ``format`` (the adapter doesn't know the row), ``empty`` id or label, ``unknown_class``,
            ``conflict`` (one slide, two contents), ``repeated`` row, ``suspect_id`` (an id that a spreadsheet
            seems to have changed), ``excluded`` by the user's list, ``without_slide`` (no features or slide),
            ``without_label``.
        line: Line in the file, the header is 1; 0 where no row speaks of the slide.
        slide_id: The slide.
        detail: One sentence.
        fatal: Whether the table can't be used so.
    """

    kind: RowKind
    line: int
    slide_id: str
    detail: str
    fatal: bool


def examine_rows(
    path: Path, labelled: LabelTable, allowed: Sequence[str], exclusion: Exclusion | None = None
) -> tuple[tuple[CohortRow, ...], tuple[RowFinding, ...]]:
    """Takes the rows that can be used, each slide once, and says what is with the others.

    Args:
        path: The table, for the sentences.
        labelled: What the adapter read.
        allowed: Classes of the task; empty = any.
        exclusion: Slides and patients to leave out.

    Returns:
        The rows in table order, slide ids without slide extension unless two slides differ only in it; and
        the findings in the same order. Of a slide with two contents the first is taken.
    """
    # ``a.svs`` beside ``a.tif`` are two slides and keep their extensions; ``a`` beside ``a.svs`` is one.
    spellings: dict[str, set[str]] = {}
    for raw in labelled.rows:
        short = slides.slide_id_of(raw.slide_id)
        if short != raw.slide_id:
            spellings.setdefault(short, set()).add(raw.slide_id)
    seen: dict[str, tuple[CohortRow, int]] = {}
    findings: list[RowFinding] = []
    for raw in labelled.rows:
        short = slides.slide_id_of(raw.slide_id)
        slide_id = raw.slide_id if len(spellings.get(short, ())) > 1 else short
        line = raw.source.line
        if exclusion and exclusion.covers(slide_id, raw.case_id or ""):
            detail = f"{path}, row {line}: slide {slide_id!r} is left out by {exclusion.name}."
            findings.append(RowFinding("excluded", line, slide_id, detail, fatal=False))
            continue
        fault = _fault(path, raw, allowed)
        if fault is not None:
            findings.append(fault)
            continue
        case_id = slide_id if raw.case_id is None else raw.case_id
        row = CohortRow(slide_id=slide_id, case_id=case_id, label=raw.label, centre=raw.centre)
        findings += _suspicious_ids(path, line, row)
        if slide_id not in seen:
            seen[slide_id] = (row, line)
        else:
            findings.append(_second(path, row, line, *seen[slide_id]))
    return tuple(row for row, _ in seen.values()), tuple(findings)


def _fault(path: Path, raw: LabelledRow, allowed: Sequence[str]) -> RowFinding | None:
    line = raw.source.line
    required = {"slide_id": raw.slide_id, "label": raw.label, "case_id": raw.case_id}
    for column, value in required.items():
        if value is not None and value in _BLANK:
            detail = f"{path}, row {line}: the {column!r} is empty; fill it in."
            return RowFinding("empty", line, raw.slide_id, detail, fatal=True)
    if allowed and raw.label not in allowed:
        detail = (
            f"{path}, row {line}: the label {raw.label!r} of slide {raw.slide_id!r} is not "
            f"among the classes of the task ({', '.join(allowed)})."
        )
        return RowFinding("unknown_class", line, raw.slide_id, detail, fatal=True)
    return None


def _suspicious_ids(path: Path, line: int, row: CohortRow) -> list[RowFinding]:
    return [
        RowFinding(
            "suspect_id", line, row.slide_id,
            f"{path}, row {line}: the {column} {value!r} looks as if a spreadsheet had changed it; "
            "compare it with the source.",
            fatal=False,
        )
        for column, value in (("slide_id", row.slide_id), ("case_id", row.case_id))
        if _DAMAGED.fullmatch(value) and (column == "slide_id" or value != row.slide_id)
    ]  # fmt: skip


def _second(path: Path, row: CohortRow, line: int, first: CohortRow, first_line: int) -> RowFinding:
    if row == first:
        detail = f"{path}, row {line}: slide {row.slide_id!r} repeats row {first_line}."
        return RowFinding("repeated", line, row.slide_id, detail, fatal=False)
    differing = next(f for f in ("label", "case_id", "centre") if getattr(row, f) != getattr(first, f))
    detail = (
        f"{path}: slide {row.slide_id!r} is in rows {first_line} and {line} with {differing} "
        f"{getattr(first, differing)!r} and {getattr(row, differing)!r}; keep the right one."
    )
    return RowFinding("conflict", line, row.slide_id, detail, fatal=True)
