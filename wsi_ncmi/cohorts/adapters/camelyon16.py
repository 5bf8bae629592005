"""CAMELYON-16 label sheets (``slide_id,label`` with 0 = normal, 1 = tumor).

The names carry the official split: ``normal_NNN`` and ``tumor_NNN`` train, ``test_NNN`` test. The ``case_id``
that circulates with these sheets isn't a reliable patient, so it isn't used.
"""

from __future__ import annotations

import re

from wsi_ncmi.cohorts.labelled import Labelled, LabelledRow
from wsi_ncmi.cohorts.table import Table

__all__ = ["CLASSES", "read"]

CLASSES = ("normal", "tumor")
_NAMES = {"0": "normal", "1": "tumor", "normal": "normal", "tumor": "tumor"}
_SLIDE = re.compile(r"((normal|tumor|test)_\d{3})(\.tiff?)?")


def read(table: Table) -> Labelled:
    """Slides with class and official part; patients are unknown."""
    table.require(("slide_id", "label"))
    rows: list[LabelledRow] = []
    official: dict[str, str] = {}
    for row in table.rows:
        match = _SLIDE.fullmatch(row["slide_id"])
        if match is None:
            raise table.problem(row, "slide_id", "not a name like normal_001, tumor_001 or test_001")
        label = _NAMES.get(row["label"].lower())
        if label is None:
            raise table.problem(row, "label", "neither 0 (normal) nor 1 (tumor)")
        if match[2] != "test" and match[2] != label:
            raise table.problem(row, "label", f"contradicts the name {match[1]!r}")
        rows.append(LabelledRow(row, match[1], case_id=None, label=label))
        official[match[1]] = "test" if match[2] == "test" else "train"
    return Labelled(
        rows,
        classes=CLASSES,
        case_problem="has no reliable patient ids (CAMELYON-16 publishes none)",
        official_split=official,
        notes=("CAMELYON-16 publishes no reliable patient ids; each slide was taken for a patient.",),
    )
