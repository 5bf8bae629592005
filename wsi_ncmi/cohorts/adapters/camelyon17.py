"""CAMELYON-17's ``stage_labels.csv``: slides and patients in one column, centres from the patient number.

Rows ending in ``.zip`` are patients with their pN stage, the others slides. Five centres gave 20 patients
each, in order: patients 000–019 are centre 0, 020–039 centre 1 and so on. The official split is the one of
the ACMIL/AEM/ASMIL family: centres 0–2 train, 3–4 test (the challenge's own test labels aren't public).
"""

from __future__ import annotations

import re

from wsi_ncmi.cohorts.labelled import Labelled, LabelledRow
from wsi_ncmi.cohorts.table import Table

__all__ = ["CLASSES", "STAGES", "read", "read_stages"]

CLASSES = ("negative", "itc", "micro", "macro")
STAGES = ("pN0", "pN0(i+)", "pN1mi", "pN1", "pN2")
_PATIENTS_PER_CENTRE = 20
_TRAINING_CENTRES = frozenset({"0", "1", "2"})
_SLIDE = re.compile(r"(patient_(\d{3}))_node_\d+(\.tiff?)?")
_PATIENT = re.compile(r"(patient_\d{3})\.zip")


def read(table: Table) -> Labelled:
    """Slides with label, patient and centre."""
    table.require(("patient", "stage"))
    rows: list[LabelledRow] = []
    official: dict[str, str] = {}
    for row in table.rows:
        if _PATIENT.fullmatch(row["patient"]):
            continue
        match = _SLIDE.fullmatch(row["patient"])
        if match is None:
            raise table.problem(row, "patient", "neither patient_NNN.zip nor patient_NNN_node_M.tif")
        centre = str(int(match[2]) // _PATIENTS_PER_CENTRE)
        slide_id = row["patient"].removesuffix(match[3] or "")
        rows.append(LabelledRow(row, slide_id, case_id=match[1], label=row["stage"], centre=centre))
        official[slide_id] = "train" if centre in _TRAINING_CENTRES else "test"
    return Labelled(rows, classes=CLASSES, official_split=official)


def read_stages(table: Table) -> dict[str, str]:
    """Patient → pN stage from the rows ending in ``.zip``.

    Raises:
        InputError: An unknown stage.
    """
    table.require(("patient", "stage"))
    stages: dict[str, str] = {}
    for row in table.rows:
        match = _PATIENT.fullmatch(row["patient"])
        if match:
            if row["stage"] not in STAGES:
                raise table.problem(row, "stage", f"not a stage ({', '.join(STAGES)})")
            stages[match[1]] = row["stage"]
    return stages
