"""Bags of patients: all tiles of all slides of a patient in one bag."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.cohorts.cohort import Cohort, CohortRow
from wsi_ncmi.cohorts.fold import PARTS, Fold, Splits
from wsi_ncmi.cohorts.sources import BagSource
from wsi_ncmi.core.errors import InputError

__all__ = ["PatientBags", "patient_cohort", "patient_splits", "slide_splits"]


class PatientBags:
    """Bag source whose bags are patients; see ``BagSource``: a "slide" of it is a patient.

    Args:
        source: The slides' bags.
        slides: Patient → slides, each with features, in the order in which their tiles follow each other.
    """

    def __init__(self, source: BagSource, slides: Mapping[str, Sequence[str]]) -> None:
        self.slides_source = source
        self.slides = {patient: tuple(names) for patient, names in slides.items()}
        self.path: Path = source.path
        self.width = source.width
        self.encoder = source.encoder
        self.slide_ids = tuple(self.slides)
        tiles = dict(zip(source.slide_ids, source.lengths.tolist(), strict=True))
        self.lengths: NDArray[np.int64] = np.array(
            [sum(tiles[name] for name in names) for names in self.slides.values()], dtype=np.int64
        )

    def __reduce__(self) -> tuple[type[PatientBags], tuple[BagSource, Mapping[str, Sequence[str]]]]:
        return PatientBags, (self.slides_source, self.slides)

    def load(self, slide_id: str) -> NDArray[np.float16]:
        """Embeddings of all tiles of a patient, float16 (N, D)."""
        if slide_id not in self.slides:
            raise InputError(f"{self.path} has no features of the patient {slide_id!r}.")
        bags = [self.slides_source.load(name) for name in self.slides[slide_id]]
        return bags[0] if len(bags) == 1 else np.concatenate(bags)

    def coordinates(self, slide_id: str) -> None:
        """None: the tiles of different slides have no common place."""

    def embedded_cohort(self, group: str | None = None) -> Cohort | None:
        """None: see :func:`patient_cohort`."""
        return None


def patient_cohort(cohort: Cohort) -> tuple[Cohort, dict[str, tuple[str, ...]]]:
    """The cohort with one row a patient.

    Args:
        cohort: Slides with known patients.

    Returns:
        A cohort whose slide ids are the patients, and patient → slides, in the order of the rows. A patient
        whose slides come from several centres has none.

    Raises:
        InputError: Patients aren't known, or a patient's slides have different labels.
    """
    if cohort.case_id_assumed:
        raise InputError("Bags of patients need patient ids; add a 'case_id' column to the labels.")
    rows: dict[str, list[CohortRow]] = {}
    for row in cohort.rows:
        rows.setdefault(row.case_id, []).append(row)
    merged = []
    for patient, of_patient in rows.items():
        labels = sorted({row.label for row in of_patient})
        if len(labels) > 1:
            raise InputError(
                f"The slides of the patient {patient!r} have the labels {' and '.join(map(repr, labels))}; "
                "give all of them the label of the patient, or train on slides (bag: slide)."
            )
        centres = {row.centre for row in of_patient}
        merged.append(CohortRow(patient, patient, labels[0], centres.pop() if len(centres) == 1 else ""))
    official: dict[str, str] = {}
    for patient, of_patient in rows.items():
        parts = {
            cohort.official_split[row.slide_id] for row in of_patient if row.slide_id in cohort.official_split
        }
        if len(parts) > 1:
            raise InputError(
                f"The official split has slides of the patient {patient!r} in {' and '.join(sorted(parts))}."
            )
        official.update((patient, part) for part in parts)
    slides = {patient: tuple(row.slide_id for row in of_patient) for patient, of_patient in rows.items()}
    # Copies of images are a matter of slides: see slide_splits.
    return replace(cohort, rows=tuple(merged), official_split=official, fingerprints={}), slides


def patient_splits(splits: Splits, cohort: Cohort) -> Splits:
    """Splits of slides as splits of patients.

    Args:
        splits: Of slides.
        cohort: The slides' cohort.

    Raises:
        InputError: A patient's slides are in different parts of a fold.
    """
    folds = []
    for number, fold in enumerate(splits.folds):
        placed: dict[str, str] = {}
        for name in PARTS:
            for slide_id in fold.part(name):
                patient = cohort.by_slide[slide_id].case_id
                if placed.setdefault(patient, name) != name:
                    raise InputError(
                        f"Fold {number} has slides of the patient {patient!r} in {placed[patient]} and "
                        f"{name}; make the splits again."
                    )
        parts = (tuple(sorted(p for p, where in placed.items() if where == name)) for name in PARTS)
        folds.append(Fold(*parts))
    return replace(splits, folds=tuple(folds))


def slide_splits(splits: Splits, slides: Mapping[str, Sequence[str]]) -> Splits:
    """Splits of patients as splits of their slides, for the audit of copied images.

    Args:
        splits: Of patients.
        slides: Patient → slides.
    """
    folds = []
    for fold in splits.folds:
        parts = (tuple(sorted(s for p in fold.part(name) for s in slides[p])) for name in PARTS)
        folds.append(Fold(*parts))
    return replace(splits, folds=tuple(folds))
