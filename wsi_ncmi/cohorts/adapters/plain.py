"""The plain labels table, also CLAM's: ``slide_id,label`` and, where known, ``case_id``, ``centre``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from wsi_ncmi.cohorts.labelled import Labelled, LabelledRow
from wsi_ncmi.cohorts.table import Table

__all__ = ["read"]


def read(table: Table, settings: Mapping[str, str]) -> Labelled:
    """Reads the table; ``settings`` may name other columns, for example ``label`` → ``subtype``."""
    slide = settings.get("slide_id", "slide_id")
    label = settings.get("label", "label")
    case = settings.get("case_id", "case_id")
    centre = settings.get("centre") or next((n for n in ("centre", "center") if n in table.columns), None)
    named = [settings[key] for key in ("case_id", "centre") if key in settings]
    table.require((slide, label, *named))
    has_cases = case in table.columns
    rows = [
        LabelledRow(
            row,
            slide_id=row[slide],
            case_id=row[case] if has_cases else None,
            label=row[label],
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
