"""CAMELYON-17's patient stage and its kappa from slide predictions, with intervals over patients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from wsi_ncmi.metrics.bootstrap import bca_interval, draw_multiplicities, leave_one_out, percentile_interval
from wsi_ncmi.metrics.confusion import confusion_metrics
from wsi_ncmi.metrics.evaluation import CONFIDENCE, Estimate
from wsi_ncmi.metrics.staging import SLIDE_LABELS, STAGES, patient_stages

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["evaluate_stages"]

_METRICS = {"kappa_quadratic": "kappa_quadratic", "accuracy": "accuracy"}


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
        **{name: _estimate(value[name], drawn[name], left_out[name]).to_json() for name in _METRICS},
        "confusion_matrix": np.mean([c.sum(axis=0).reshape(5, 5) for c in cells], axis=0).tolist(),
    }


def _values(
    cells: Sequence[NDArray[np.float64]], weights: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    by_seed = [confusion_metrics((weights @ cell).reshape(-1, len(STAGES), len(STAGES))) for cell in cells]
    return {name: np.mean([values[name] for values in by_seed], axis=0) for name in _METRICS}


def _estimate(
    value: NDArray[np.float64], drawn: NDArray[np.float64], left_out: NDArray[np.float64]
) -> Estimate:
    number = float(value[0])
    if not np.isfinite(number):
        return Estimate(number, reason="undefined: true and predicted stages are one and the same")
    low, high, defined = percentile_interval(drawn, CONFIDENCE)
    bca = bca_interval(drawn, number, left_out, CONFIDENCE)
    return Estimate(
        number, low, high, "" if defined >= 0.5 else "no interval: undefined in most resamples", *bca
    )
