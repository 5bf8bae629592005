"""CAMELYON-17's patient stage from the slides, and the challenge's metric.

Source: Bándi et al. 2019, "From Detection of Individual Metastases to Classification of Lymph Node Status
at the Patient Level: The CAMELYON17 Challenge", IEEE TMI 38(2), after the TNM rules (7th edition).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.metrics.confusion import confusion_matrix, confusion_metrics

__all__ = ["SLIDE_LABELS", "STAGES", "patient_stage", "patient_stages", "stage_kappa"]

STAGES = ("pN0", "pN0(i+)", "pN1mi", "pN1", "pN2")
SLIDE_LABELS = ("negative", "itc", "micro", "macro")


def patient_stage(slide_labels: Iterable[str]) -> str:
    """The pN stage of one patient.

    No metastasis → pN0; only isolated tumour cells → pN0(i+); micro but no macro → pN1mi; at least one
    macro and 1–3 nodes with micro or macro → pN1, with 4 or more → pN2.

    Args:
        slide_labels: One of negative, itc, micro, macro for each lymph node.

    Raises:
        InputError: Another label, or no slides.
    """
    labels = list(slide_labels)
    if not labels:
        raise InputError("A patient without slides has no stage.")
    for label in labels:
        if label not in SLIDE_LABELS:
            raise InputError(f"The stage rule doesn't know the label {label!r} ({', '.join(SLIDE_LABELS)}).")
    positive_nodes = sum(label in ("micro", "macro") for label in labels)
    if "macro" in labels:
        return "pN2" if positive_nodes >= 4 else "pN1"
    if positive_nodes:
        return "pN1mi"
    return "pN0(i+)" if "itc" in labels else "pN0"


def patient_stages(slides: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Stages of many patients.

    Args:
        slides: ``(case_id, label)`` of each slide.

    Returns:
        Patient → stage, sorted by patient.
    """
    by_patient: dict[str, list[str]] = {}
    for case_id, label in slides:
        by_patient.setdefault(case_id, []).append(label)
    return {case_id: patient_stage(by_patient[case_id]) for case_id in sorted(by_patient)}


def stage_kappa(
    truth: Mapping[str, str], predicted: Mapping[str, str], stages: Sequence[str] = STAGES
) -> float:
    """Quadratic-weighted Cohen's kappa over patients, the challenge's metric; NaN where undefined.

    Raises:
        InputError: The two don't hold the same patients, or a stage is unknown.
    """
    if set(truth) != set(predicted):
        only = sorted(set(truth) ^ set(predicted))
        raise InputError(f"Patient {only[0]!r} has a true or a predicted stage, but not both.")
    index = {name: i for i, name in enumerate(stages)}
    unknown = sorted({*truth.values(), *predicted.values()} - set(index))
    if unknown:
        raise InputError(f"Unknown stage {unknown[0]!r}; known are {', '.join(stages)}.")
    patients = sorted(truth)
    a = np.asarray([index[truth[p]] for p in patients], dtype=np.int64)
    b = np.asarray([index[predicted[p]] for p in patients], dtype=np.int64)
    return float(confusion_metrics(confusion_matrix(a, b, len(stages)))["kappa_quadratic"])
