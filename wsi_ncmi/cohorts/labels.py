"""From a labels table to a validated cohort."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from wsi_ncmi import slides
from wsi_ncmi.cohorts.adapters import bracs, camelyon16, camelyon17, tcga
from wsi_ncmi.cohorts.cohort import Cohort, CohortRow, order_classes
from wsi_ncmi.cohorts.labelled import Labelled, LabelledRow
from wsi_ncmi.cohorts.table import Table, TableRow, read_table
from wsi_ncmi.errors import InputError

__all__ = ["ADAPTERS", "read_labels"]

_BLANK = frozenset({"", "nan", "NaN"})


def read_labels(
    path_or_spec: str | Path, *, group: str | None = None, classes: Sequence[str] | None = None
) -> Cohort:
    """Reads the labels of a cohort.

    Args:
        path_or_spec: A CSV with ``slide_id``, ``label`` and, where known, ``case_id`` (patient) and
            ``centre`` (or ``center``); or ``adapter:FILE``, such as ``camelyon17:stage_labels.csv``
            (see ``ADAPTERS``).
        group: ``"slide_id"`` = the user says that each slide is a patient of its own; needed where the table
            knows no patients. Patient ids that are known are kept all the same.
        classes: All classes of the task in order; default: those in the table, in a sensible order.

    Returns:
        The cohort, one row a slide, all ids strings as written, slide ids without slide extension. A patient
        whose slides differ in class is fine.

    Raises:
        InputError: Names file, row, column and value: a column missing, an empty id or label, a slide twice
            with different content, an unknown class, no patient ids, or one class only.
    """
    adapter, path = _parse(path_or_spec)
    table = read_table(path)
    labelled = ADAPTERS[adapter](table)
    if labelled.case_problem and group != "slide_id":
        raise InputError(
            f"{path} {labelled.case_problem}: without patient ids one patient could be in training and test; "
            "add a column 'case_id', or say with --group slide_id that each slide is a patient of its own."
        )
    rows, notes = _unique_rows(table, labelled, classes)
    found = {row.label for row in rows}
    if len(found) < 2:
        raise InputError(
            f"All {len(rows)} slides of {path} have the class {next(iter(found))!r}; a task needs two."
        )
    kept = {row.slide_id for row in rows}
    return Cohort(
        rows=rows,
        classes=tuple(classes) if classes else (labelled.classes or order_classes(found)),
        case_id_assumed=bool(labelled.case_problem),
        official_split={s: p for s, p in labelled.official_split.items() if s in kept},
        notes=(*labelled.notes, *notes),
    )


def _parse(path_or_spec: str | Path) -> tuple[str, Path]:
    match = re.fullmatch(r"([A-Za-z][A-Za-z0-9_-]*):(.+)", str(path_or_spec))
    if match is None or Path(path_or_spec).exists():
        return "csv", Path(path_or_spec)
    name, path = match.groups()
    if name not in ADAPTERS:
        raise InputError(
            f"Unknown labels adapter {name!r} in {str(path_or_spec)!r}; "
            f"known are {', '.join(sorted(ADAPTERS))}."
        )
    return name, Path(path)


def _plain(table: Table) -> Labelled:
    table.require(("slide_id", "label"))
    has_cases = "case_id" in table.columns
    centre = next((name for name in ("centre", "center") if name in table.columns), None)
    rows = [
        LabelledRow(
            row,
            slide_id=row["slide_id"],
            case_id=row["case_id"] if has_cases else None,
            label=row["label"],
            centre=row[centre] if centre else "",
        )
        for row in table.rows
    ]
    problem = "" if has_cases else f"has no column 'case_id'{table.hint('case_id')}"
    return Labelled(rows, case_problem=problem, notes=_numbered_rows_note(table, rows))


def _numbered_rows_note(table: Table, rows: Sequence[LabelledRow]) -> tuple[str, ...]:
    # patient_0, patient_1, … in row order: typical of sheets in which nobody knew the patients.
    numbers = [re.findall(r"\d+$", row.case_id or "") for row in rows]
    if len(rows) > 1 and all(found and int(found[0]) == i for i, found in enumerate(numbers)):
        return (
            f"The patient ids of {table.path.name} merely count its rows; if they aren't real patients, "
            "a patient may be in training and test.",
        )
    return ()


def _unique_rows(
    table: Table, labelled: Labelled, classes: Sequence[str] | None
) -> tuple[tuple[CohortRow, ...], tuple[str, ...]]:
    allowed = classes or labelled.classes
    # ``a.svs`` beside ``a.tif`` are two slides and keep their extensions; ``a`` beside ``a.svs`` is one.
    spellings: dict[str, set[str]] = {}
    for raw in labelled.rows:
        short = slides.slide_id_of(raw.slide_id)
        if short != raw.slide_id:
            spellings.setdefault(short, set()).add(raw.slide_id)
    seen: dict[str, tuple[CohortRow, TableRow]] = {}
    repeated = 0
    for raw in labelled.rows:
        short = slides.slide_id_of(raw.slide_id)
        slide_id = raw.slide_id if len(spellings.get(short, ())) > 1 else short
        row = _checked_row(table, raw, slide_id, allowed)
        if row.slide_id not in seen:
            seen[row.slide_id] = (row, raw.source)
            continue
        first, first_source = seen[row.slide_id]
        if row != first:
            differing = next(
                f for f in ("label", "case_id", "centre") if getattr(row, f) != getattr(first, f)
            )
            raise InputError(
                f"{table.path}: slide {row.slide_id!r} is in rows {first_source.line} and {raw.source.line} "
                f"with {differing} {getattr(first, differing)!r} and {getattr(row, differing)!r}; "
                "keep the right one."
            )
        repeated += 1
    notes = (f"{repeated} rows of {table.path.name} repeated an earlier row and were left out.",)
    return tuple(row for row, _ in seen.values()), notes if repeated else ()


def _checked_row(table: Table, raw: LabelledRow, slide_id: str, allowed: Sequence[str]) -> CohortRow:
    required = {"slide_id": raw.slide_id, "label": raw.label, "case_id": raw.case_id}
    for column, value in required.items():
        if value is not None and value in _BLANK:
            raise InputError(f"{table.path}, row {raw.source.line}: the {column!r} is empty; fill it in.")
    if allowed and raw.label not in allowed:
        raise InputError(
            f"{table.path}, row {raw.source.line}: the label {raw.label!r} of slide {raw.slide_id!r} is not "
            f"among the classes of the task ({', '.join(allowed)})."
        )
    case_id = slide_id if raw.case_id is None else raw.case_id
    return CohortRow(slide_id=slide_id, case_id=case_id, label=raw.label, centre=raw.centre)


ADAPTERS: Mapping[str, Callable[[Table], Labelled]] = {
    "bracs": bracs.seven_classes,
    "bracs3": bracs.three_classes,
    "bracs7": bracs.seven_classes,
    "camelyon16": camelyon16.read,
    "camelyon17": camelyon17.read,
    "clam": _plain,
    "csv": _plain,
    "tcga": tcga.read,
}
"""Adapter name → how to read that kind of table; ``csv`` is the plain form."""
