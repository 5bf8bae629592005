"""Labels that a file of features carries itself, as a cohort."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wsi_ncmi.cohorts.cohort import Cohort, CohortRow, order_classes
from wsi_ncmi.core.errors import InputError

__all__ = ["cohort_of_columns"]


def cohort_of_columns(
    path: Path,
    slide_ids: Sequence[str],
    labels: Sequence[str] | None,
    cases: Sequence[str] | None,
    centres: Sequence[str] | None,
    group: str | None,
) -> Cohort | None:
    """The cohort that columns of texts describe, or None where there are no labels.

    Args:
        path: The file, for messages.
        slide_ids: Ids.
        labels: Class of each slide.
        cases: Patient of each slide, None where the file doesn't know.
        centres: Centre of each slide, None where the file doesn't know.
        group: ``"slide_id"`` = the user says that each slide is a patient of its own; known patient ids are
            kept all the same, so that the leak audit can see what that does.

    Raises:
        InputError: Labels without patients and without that word of the user, an empty label, or a single
        class.
    """
    if labels is None:
        return None
    if cases is None and group != "slide_id":
        raise InputError(
            f"{path} has no 'case_id': without patient ids a patient could be in training and test; "
            "add 'case_id', or say with --group slide_id that each slide is a patient of its own."
        )
    assumed = cases is None
    patients = slide_ids if cases is None else cases
    for column, values in (("label", labels), ("case_id", patients)):
        for slide_id, value in zip(slide_ids, values, strict=True):
            if not value:
                raise InputError(f"{path}: slide {slide_id!r} has an empty {column!r}; fill it in.")
    classes = order_classes(labels)
    if len(classes) < 2:
        raise InputError(f"{path} holds only the class {classes[0]!r}; a task needs at least two.")
    rows = zip(slide_ids, patients, labels, centres or ("",) * len(slide_ids), strict=True)
    return Cohort(tuple(CohortRow(*row) for row in rows), classes, case_id_assumed=assumed)
