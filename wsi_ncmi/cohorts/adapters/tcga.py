"""TCGA tables: patient and site from the barcode.

``TCGA-83-5908-01Z-00-DX1.<uuid>``: the patient is the first twelve characters, the site that gave the tissue
(TSS code) the two after ``TCGA-``. Reads ``slide_id`` or ``slide`` and ``label`` or ``subtype``, so that
slideflow's annotation tables work as they are; ``?label=COLUMN`` names another class column.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from wsi_ncmi.cohorts.labelled import Labelled, LabelledRow
from wsi_ncmi.cohorts.table import Table

__all__ = ["read"]

_BARCODE = re.compile(r"(TCGA-([A-Z0-9]{2})-[A-Z0-9]{4})(-.*)?")
_CASE_COLUMNS = ("case_id", "patient", "patient_id")


def read(table: Table, settings: Mapping[str, str]) -> Labelled:
    """Slides with label, patient and site."""
    slide_column = settings.get("slide_id") or (
        "slide" if "slide_id" not in table.columns and "slide" in table.columns else "slide_id"
    )
    label_column = settings.get("label") or (
        "subtype" if "label" not in table.columns and "subtype" in table.columns else "label"
    )
    table.require((slide_column, label_column))
    case_column = next((name for name in _CASE_COLUMNS if name in table.columns), None)
    rows: list[LabelledRow] = []
    for row in table.rows:
        match = _BARCODE.fullmatch(row[slide_column])
        if match is None:
            raise table.problem(row, slide_column, "not a TCGA barcode like TCGA-83-5908-01Z-00-DX1")
        case_id, site = match[1], match[2]
        if case_column and row[case_column] and row[case_column][:12] != case_id:
            raise table.problem(row, case_column, f"not the patient {case_id} of the slide's barcode")
        rows.append(
            LabelledRow(row, row[slide_column], case_id=case_id, label=row[label_column], centre=site)
        )
    return Labelled(rows)
