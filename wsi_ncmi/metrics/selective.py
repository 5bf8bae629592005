"""Abstention: accuracy on the slides with the most confident predictions (coverage and risk)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.metrics.confusion import class_positions, confusion_matrix, confusion_metrics

if TYPE_CHECKING:
    import pandas as pd

COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.5)

_Floats = NDArray[np.float64]


def risk_coverage(confidence: _Floats, wrong: NDArray[np.bool_]) -> tuple[_Floats, _Floats]:
    """Error rate among the k most confident slides, for k = 1 … N.

    Source: Geifman & El-Yaniv 2017 (arXiv 1705.08500). Slides of equal confidence are taken in random order;
    the risk is the expected one, so that it doesn't depend on the order of the rows.

    Args:
        confidence: (N,) higher is more confident.
        wrong: (N,) whether the prediction is wrong.

    Returns:
        ``(coverage, risk)``, each (N,).
    """
    order = np.argsort(-confidence, kind="stable")
    errors = wrong[order].astype(np.float64)
    _, group, size = np.unique(-confidence[order], return_inverse=True, return_counts=True)
    errors = (np.bincount(group, weights=errors) / size)[group]
    accepted = np.arange(1, len(errors) + 1)
    return accepted / len(errors), np.cumsum(errors) / accepted


def area_under_risk_coverage(confidence: _Floats, wrong: NDArray[np.bool_]) -> float:
    """Mean of the risk over all coverages (AURC); 0 = never wrong; NaN without slides."""
    if len(confidence) == 0:
        return float("nan")
    return float(risk_coverage(confidence, wrong)[1].mean())


def selective_metrics(frame: pd.DataFrame, classes: Sequence[str]) -> dict[str, Any]:
    """Metrics when the least confident slides are left to a person.

    Args:
        frame: A checked predictions table.
        classes: All classes of the task.

    Returns:
        JSON-ready ``{"confidence": "largest probability", "aurc", "points"}``; a point for each of
        ``COVERAGES``: the coverage reached (ties are accepted together), the least confidence accepted,
        slides, accuracy and macro-F1 over all classes; all are means over seeds.
    """
    by_seed = [_of_seed(part, classes) for _, part in frame.groupby("seed", sort=True)]
    points = [
        {key: float(np.mean([points[i][key] for _, points in by_seed])) for key in by_seed[0][1][i]}
        for i in range(len(COVERAGES))
    ]
    return {
        "confidence": "largest probability",
        "aurc": float(np.mean([area for area, _ in by_seed])),
        "points": points,
    }


def _of_seed(part: pd.DataFrame, classes: Sequence[str]) -> tuple[float, list[dict[str, float]]]:
    truth = class_positions(part["label"].tolist(), classes)
    predicted = class_positions(part["prediction"].tolist(), classes)
    confidence = part[[f"p_{name}" for name in classes]].to_numpy(dtype=np.float64).max(axis=1)
    points = []
    for target in COVERAGES:
        threshold = np.sort(confidence)[::-1][max(0, int(np.ceil(target * len(part))) - 1)]
        kept = confidence >= threshold
        values = confusion_metrics(confusion_matrix(truth[kept], predicted[kept], len(classes)))
        points.append(
            {
                "wanted": target,
                "coverage": float(kept.mean()),
                "threshold": float(threshold),
                "slides": float(kept.sum()),
                "accuracy": float(values["accuracy"]),
                "macro_f1": float(values["macro_f1"]),
            }
        )
    return area_under_risk_coverage(confidence, truth != predicted), points
