"""slideflow's annotations: ``patient,slide`` and columns of which one is the class.

Source: slideflow's manual, "Annotations": ``patient`` is required; ``slide`` is the file's name without
extension and, where it is empty, the patient's name serves as the slide's; ``site`` is the one that
slideflow's site-preserved cross-validation uses.
"""

from __future__ import annotations

from collections.abc import Mapping

from wsi_ncmi.cohorts.labelled import Labelled, LabelledRow
from wsi_ncmi.cohorts.table import Table
from wsi_ncmi.core.errors import InputError

__all__ = ["read"]

_NOT_CLASSES = frozenset({"patient", "slide", "site", "dataset", "submitter_id", ""})


def read(table: Table, settings: Mapping[str, str]) -> Labelled:
    """Slides with patient, class and site."""
    table.require(("patient", *settings.values()))
    label = settings.get("label") or _only_class_column(table)
    centre = settings.get("centre") or ("site" if "site" in table.columns else None)
    rows = [
        LabelledRow(
            row,
            slide_id=row["slide"] or row["patient"],
            case_id=row["patient"],
            label=row[label],
            centre=row[centre] if centre else "",
        )
        for row in table.rows
    ]
    return Labelled(rows)


def _only_class_column(table: Table) -> str:
    candidates = [name for name in table.columns if name not in _NOT_CLASSES]
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise InputError(f"{table.path} has no column of classes beside patient and slide.")
    raise InputError(
        f"{table.path} has several columns that could be the class ({', '.join(candidates)}); choose one, "
        f"such as slideflow:{table.path}?label={candidates[0]}."
    )
