"""Rows of a labels table, those left out, and a finding for each row with a fault."""

import csv
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from wsi_ncmi import slides
from wsi_ncmi.cohorts.cohort import CohortRow
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.tables import TableRow, read_text
from wsi_ncmi.core.values import SUSPECT, holds_control, is_empty, suspects, tidy


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
        entries: Slide and patient ids, each with the readings that its line allows, the most literal first.
    """

    name: str
    entries: tuple[tuple[str, ...], ...]

    def among(self, known: Collection[str]) -> tuple[frozenset[str], tuple[str, ...]]:
        """The entries that name something known, and those that name nothing: usually misspellings.

        Args:
            known: Slide ids, also without their extension, and patient ids.
        """
        found = [next((reading for reading in entry if reading in known), "") for entry in self.entries]
        unused = {entry[-1] for entry, reading in zip(self.entries, found, strict=True) if not reading}
        return frozenset(found) - {""}, tuple(sorted(unused))


_REMARK = re.compile(r"\s#.*")
_FIRST_CELL = re.compile(r"""\s*(?:"((?:[^"]|"")*)"|([^,;\t]*))""")


def read_exclusion(path: Path) -> Exclusion:
    """Reads a list: a slide or patient in each line, or a table.

    ``#`` begins a remark at the start of a line and after a blank: ``S12#7`` is an id. A table, told by a
    header ``slide_id`` or ``case_id``, is separated as ``read_table`` takes it; of other lines with
    separators the first cell counts, where the whole line is no id itself.

    Raises:
        InputError: The file can't be read, is no text or names nothing.
    """
    try:
        text = read_text(path)
    except InputError as error:
        raise InputError(f"The exclusion list: {error}") from error
    lines = [tidy(line) for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith(("#", "sep="))]
    header = [tidy(cell).strip('"').lower() for cell in re.split("[,;\t]", lines[0])] if lines else []
    column = next((name for name in ("slide_id", "case_id") if name in header), None)
    readings: list[tuple[str, ...]]
    if column is not None and len(header) > 1:
        place, separator = header.index(column), max(",;\t", key=lines[0].count)
        rows = csv.reader(lines[1:], delimiter=separator)
        readings = [(row[place], _REMARK.sub("", row[place])) for row in rows if len(row) > place]
    else:
        bare = [_REMARK.sub("", line) for line in lines[1 if column else 0 :]]
        readings = list(zip(lines[1 if column else 0 :], bare, map(_first_cell, bare), strict=True))
    entries = []
    for reading in readings:
        ids = [tidy(text) for text in reading]
        entry = tuple(dict.fromkeys(name for text in ids for name in (text, slides.slide_id_of(text))))
        if not is_empty(ids[-1]):
            entries.append(entry)
    if not entries:
        raise InputError(f"The exclusion list {path} names no slide; write one id in each line.")
    return Exclusion(path.name, tuple(dict.fromkeys(entries)))


def _first_cell(line: str) -> str:
    match = _FIRST_CELL.match(line)
    assert match is not None  # it may be empty, but it is there
    return match[2] if match[1] is None else match[1].replace('""', '"')


RowKind = Literal[
    "format", "empty", "unknown_class", "suspect_class", "conflict", "repeated", "suspect_id", "excluded",
    "without_slide", "without_label",
]  # fmt: skip

# What a spreadsheet makes of a long number, and of a number with a gap in its column.
_DAMAGED = re.compile(r"\d(\.\d+)?E\+\d+|\d+\.0")


@dataclass(frozen=True)
class RowFinding:
    """One thing about one row.

    Attributes:
        kind: ``format`` (the adapter doesn't know the row), ``empty`` id or label, ``unknown_class``,
            ``suspect_class`` (spelled almost like another), ``conflict`` (one slide, two contents),
            ``repeated`` row, ``suspect_id`` (an id that a spreadsheet seems to have changed, or that is
            spelled almost like another), ``excluded`` by the user's list, ``without_slide`` (no features or
            slide), ``without_label``.
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
    slide_ids = _slide_ids(labelled)
    excluded = exclusion.among(known_ids(labelled))[0] if exclusion else frozenset()
    seen: dict[str, tuple[CohortRow, int]] = {}
    findings: list[RowFinding] = []
    for raw, slide_id in zip(labelled.rows, slide_ids, strict=True):
        line = raw.source.line
        if exclusion and excluded & {slide_id, slides.slide_id_of(slide_id), raw.case_id}:
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
    findings += _suspects(path, list(seen.values()), classes_known=bool(allowed))
    return tuple(row for row, _ in seen.values()), tuple(findings)


def _slide_ids(labelled: LabelTable) -> list[str]:
    # ``a.svs`` beside ``a.tif`` are two slides and keep their extensions; ``a`` beside ``a.svs`` is one.
    spellings: dict[str, set[str]] = {}
    for raw in labelled.rows:
        short = slides.slide_id_of(raw.slide_id)
        if short != raw.slide_id:
            spellings.setdefault(short, set()).add(raw.slide_id)
    shorts = ((raw.slide_id, slides.slide_id_of(raw.slide_id)) for raw in labelled.rows)
    return [given if len(spellings.get(short, ())) > 1 else short for given, short in shorts]


def known_ids(labelled: LabelTable) -> set[str]:
    """What an exclusion list may name: slides, with or without an extension, and patients."""
    slide_ids = _slide_ids(labelled)
    cases = (row.case_id for row in labelled.rows if row.case_id)
    return {*slide_ids, *map(slides.slide_id_of, slide_ids), *cases}


def _suspects(path: Path, rows: Sequence[tuple[CohortRow, int]], *, classes_known: bool) -> list[RowFinding]:
    found = []
    for column in ("label", "case_id", "slide_id", "centre"):
        if column == "label" and classes_known:
            continue
        counts = Counter(getattr(row, column) for row, _ in rows)
        firsts = {getattr(row, column): (row, line) for row, line in reversed(rows)}
        for group in suspects(counts):
            usual = max(group, key=lambda name: counts[name])
            for name in group:
                if name == usual or (column == "case_id" and firsts[name][0].slide_id == name):
                    continue
                row, line = firsts[name]
                doubt = "" if column == "label" else "if they are the same, "
                what = f"the {column} {name!r} and {usual!r}"
                detail = f"{path}, row {line}: {what} {SUSPECT}; {doubt}spell them alike."
                kind: RowKind = "suspect_class" if column == "label" else "suspect_id"
                found.append(RowFinding(kind, line, row.slide_id, detail, fatal=column == "label"))
    return found


def _fault(path: Path, raw: LabelledRow, allowed: Sequence[str]) -> RowFinding | None:
    line = raw.source.line
    required = {"slide_id": raw.slide_id, "label": raw.label, "case_id": raw.case_id}
    for column, value in required.items():
        if value is not None and not value:
            detail = (
                f"{path}, row {line}: the {column!r} is empty{raw.source.no_values}; fill it in, or leave "
                "the row out (delete it, or list it with ?exclude=FILE)."
            )
            return RowFinding("empty", line, raw.slide_id, detail, fatal=True)
    for column, value in {**required, "centre": raw.centre}.items():
        if value is not None and holds_control(value):
            detail = (
                f"{path}, row {line}: the {column} {value!r} holds a control character or line break; "
                "remove it."
            )
            return RowFinding("format", line, raw.slide_id, detail, fatal=True)
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
