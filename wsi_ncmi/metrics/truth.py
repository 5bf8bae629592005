"""The truth of a predictions table, where a labels table gives it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.metrics.foreign_predictions import class_number

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["LabelRow", "PatientRow", "by_patient", "join_truth", "names_by_labels"]


class LabelRow(Protocol):
    """A labelled slide, such as ``wsi_ncmi.cohorts.CohortRow``."""

    @property
    def slide_id(self) -> str:
        """Name of the slide."""

    @property
    def case_id(self) -> str:
        """The patient."""

    @property
    def label(self) -> str:
        """The class."""

    @property
    def centre(self) -> str:
        """The hospital or ``""``."""


@dataclass(frozen=True)
class PatientRow:
    """A ``LabelRow`` for a table with a row a patient."""

    slide_id: str
    case_id: str
    label: str
    centre: str


def names_by_labels(
    frame: pd.DataFrame, labels: Iterable[LabelRow] | None, path: Path
) -> dict[int, str] | None:
    """What the labels call CLAM's class numbers, from the slides that both know; None without labels.

    Raises:
        InputError: The labels give one number several names, or several one name.
    """
    if labels is None:
        return None
    label_of = {row.slide_id: row.label for row in labels}
    seen: dict[int, set[str]] = {}
    for slide_id, number in zip(frame["slide_id"], frame["Y"], strict=True):
        if slide_id in label_of:
            seen.setdefault(class_number(number, "Y", str(path)), set()).add(label_of[slide_id])
    for number, found in sorted(seen.items()):
        if len(found) > 1:
            raise InputError(
                f"{path}: the labels call slides of class {number} {' and '.join(sorted(found))}; check that "
                "they belong to this task."
            )
    names = {number: next(iter(found)) for number, found in seen.items()}
    if len(set(names.values())) < len(names):
        raise InputError(
            f"{path}: the labels give one name to several of its classes; check that they belong."
        )
    return names


def by_patient(labels: Iterable[LabelRow]) -> list[LabelRow]:
    """Labels of patients, for a table with a row a patient.

    Raises:
        InputError: The slides of a patient differ in label.
    """
    by_case: dict[str, PatientRow] = {}
    for row in labels:
        new = PatientRow(row.case_id, row.case_id, row.label, row.centre)
        if by_case.setdefault(row.case_id, new).label != row.label:
            raise InputError(
                f"The predictions have a row a patient, but the slides of patient {row.case_id!r} have the "
                f"labels {by_case[row.case_id].label!r} and {row.label!r}; give labels of patients."
            )
    return list(by_case.values())


def join_truth(frame: pd.DataFrame, labels: Iterable[LabelRow], path: Path) -> pd.DataFrame:
    """The table with truth, patient and centre from the labels.

    Raises:
        InputError: A slide has no label.
    """
    rows = {row.slide_id: row for row in labels}
    unknown = [s for s in frame["slide_id"] if s not in rows]
    if unknown:
        raise InputError(
            f"{path}: slide {unknown[0]!r} and {len(unknown) - 1} others have no label; add them."
        )
    joined = frame.copy()
    joined["label"] = [rows[s].label for s in frame["slide_id"]]
    joined["case_id"] = [rows[s].case_id for s in frame["slide_id"]]
    if any(row.centre for row in rows.values()):
        joined["centre"] = [rows[s].centre for s in frame["slide_id"]]
    return joined
