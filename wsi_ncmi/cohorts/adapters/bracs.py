"""BRACS label sheets: seven lesion subtypes or three groups, with the official train/val/test split.

Source: Brancati et al. 2022 (arXiv 2111.04740). Labels 0–6 = N, PB, UDH, FEA, ADH, DCIS, IC; benign = N, PB,
UDH; atypical = FEA, ADH; malignant = DCIS, IC. The ``case_id`` in circulating sheets is a row number, not a
patient (189 patients gave the 547 slides), so it isn't used. The official spreadsheet does hold patients;
saved as CSV, ``bracs:FILE?case_id=COLUMN`` takes them from the column named.
"""

from __future__ import annotations

from collections.abc import Mapping

from wsi_ncmi.cohorts.labelled import Labelled, LabelledRow
from wsi_ncmi.cohorts.table import Table

__all__ = ["GROUPS", "SUBTYPES", "seven_classes", "three_classes"]

SUBTYPES = ("N", "PB", "UDH", "FEA", "ADH", "DCIS", "IC")
GROUPS = ("benign", "atypical", "malignant")
_GROUP_OF = dict(
    zip(
        SUBTYPES,
        ("benign", "benign", "benign", "atypical", "atypical", "malignant", "malignant"),
        strict=True,
    )
)
_PARTS = {"train": "train", "val": "validation", "test": "test"}


def seven_classes(table: Table, settings: Mapping[str, str]) -> Labelled:
    """Slides with one of the seven subtypes; ``settings["case_id"]`` names a column of real patients."""
    return _read(table, {name: name for name in SUBTYPES}, SUBTYPES, settings.get("case_id"))


def three_classes(table: Table, settings: Mapping[str, str]) -> Labelled:
    """Slides with one of the three groups; ``settings["case_id"]`` names a column of real patients."""
    return _read(table, _GROUP_OF, GROUPS, settings.get("case_id"))


def _read(
    table: Table, class_of: dict[str, str], classes: tuple[str, ...], case_column: str | None
) -> Labelled:
    table.require(("slide_id", "label", "split_info", *((case_column,) if case_column else ())))
    names = {str(i): name for i, name in enumerate(SUBTYPES)} | {name: name for name in SUBTYPES}
    rows: list[LabelledRow] = []
    official: dict[str, str] = {}
    for row in table.rows:
        subtype = names.get(row["label"])
        if subtype is None:
            raise table.problem(row, "label", f"neither 0–6 nor one of {', '.join(SUBTYPES)}")
        if row["split_info"] not in _PARTS:
            raise table.problem(row, "split_info", "not train, val or test")
        slide_id = row["slide_id"].removesuffix(".svs")
        rows.append(
            LabelledRow(row, slide_id, row[case_column] if case_column else None, label=class_of[subtype])
        )
        official[slide_id] = _PARTS[row["split_info"]]
    if case_column:
        return Labelled(rows, classes=classes, official_split=official)
    return Labelled(
        rows,
        classes=classes,
        case_problem="has no reliable patient ids (the 'case_id' of BRACS sheets is a row number)",
        official_split=official,
        notes=(
            "BRACS sheets name no patients (189 gave the 547 slides); each slide was taken for a patient.",
        ),
    )
