"""Patient stages of CAMELYON-17 from slide labels, and the kappa of the challenge with its intervals.

Source: Bándi et al. 2019, "From Detection of Individual Metastases to Classification of Lymph Node Status
at the Patient Level: The CAMELYON17 Challenge", IEEE TMI 38(2), after the TNM rules (7th edition).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.metrics.confusion import ORDERED_CLASSES, confusion_matrix, confusion_metrics
from wsi_ncmi.metrics.resampling import draw_multiplicities, leave_one_out
from wsi_ncmi.metrics.results import estimate

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray


STAGES = ("pN0", "pN0(i+)", "pN1mi", "pN1", "pN2")
SLIDE_LABELS = ORDERED_CLASSES


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
    matrix = confusion_matrix(a, b, len(stages))
    return float(confusion_metrics(matrix, np.arange(len(stages)))["kappa_quadratic"])


_UNDEFINED = "undefined: true and predicted stages are one and the same"


def evaluate_stages(
    frame: pd.DataFrame, classes: Sequence[str], *, resamples: int, seed: int
) -> dict[str, Any] | None:
    """Stages patients by the challenge's rule and compares them with the stages of their true slide labels.

    Args:
        frame: A checked predictions table.
        classes: All classes of the task.
        resamples: Bootstrap resamples over patients.
        seed: Seed of the draws.

    Returns:
        JSON-ready ``{stages, n_patients, slides_per_patient, kappa_quadratic, accuracy, confusion_matrix}``,
        means over seeds; None for tasks other than CAMELYON-17's four classes, and where a slide is tested
        twice, which would count a node twice.
    """
    if set(classes) != set(SLIDE_LABELS) or frame.duplicated(["seed", "slide_id"]).any():
        return None
    index = {name: i for i, name in enumerate(STAGES)}
    patients = sorted(set(frame["case_id"]))
    cells = []
    for _, part in frame.groupby("seed", sort=True):
        truth = patient_stages(zip(part["case_id"], part["label"], strict=True))
        predicted = patient_stages(zip(part["case_id"], part["prediction"], strict=True))
        cell = np.zeros((len(patients), len(STAGES) ** 2))
        for i, patient in enumerate(patients):
            if patient in truth:
                cell[i, index[truth[patient]] * len(STAGES) + index[predicted[patient]]] = 1.0
        cells.append(cell)
    draws = np.concatenate(list(draw_multiplicities(len(patients), resamples, seed)))
    value = _values(cells, np.ones((1, len(patients))))
    drawn, left_out = _values(cells, draws), _values(cells, leave_one_out(len(patients)))
    slides = frame.drop_duplicates("slide_id").groupby("case_id").size()
    return {
        "stages": list(STAGES),
        "n_patients": len(patients),
        "slides_per_patient": {"min": int(slides.min()), "max": int(slides.max())},
        **{
            name: estimate(float(value[name][0]), drawn[name], left_out[name], _UNDEFINED, units).to_json()
            for name, units in {"kappa_quadratic": None, "accuracy": len(patients)}.items()
        },
        "confusion_matrix": np.mean([c.sum(axis=0).reshape(5, 5) for c in cells], axis=0).tolist(),
    }


def _values(
    cells: Sequence[NDArray[np.float64]], weights: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    c = len(STAGES)
    by_seed = [confusion_metrics((weights @ cell).reshape(-1, c, c), np.arange(c)) for cell in cells]
    return {
        name: np.mean([values[name] for values in by_seed], axis=0)
        for name in ("kappa_quadratic", "accuracy")
    }
