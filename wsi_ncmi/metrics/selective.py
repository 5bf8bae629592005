"""Operating points and abstention: thresholds on the predicted probabilities.

A threshold chosen on the slides that it is judged on flatters itself; here the threshold of a fold comes from
the out-of-fold predictions of the other folds of the same seed, whose patients are others. Where there is one
test part only, it comes from the validation part of the run, if that is known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.metrics.confusion import class_positions, confusion_matrix, confusion_metrics

if TYPE_CHECKING:
    import pandas as pd

TARGET_SENSITIVITIES = (0.9, 0.95)
SHARES = ("sensitivity", "specificity", "ppv", "npv")


def threshold_for_sensitivity(
    positive: NDArray[np.bool_], scores: NDArray[np.float64], sensitivity: float
) -> float:
    """The highest threshold at which at least this share of the positives scores as much or more.

    NaN without positives.
    """
    found = np.sort(scores[positive])[::-1]
    if len(found) == 0:
        return math.nan
    return float(found[max(0, math.ceil(round(sensitivity * len(found), 9)) - 1)])


def operating_points(
    frame: pd.DataFrame, classes: Sequence[str], validation: pd.DataFrame | None = None
) -> dict[str, list[dict[str, Any]]]:
    """One-vs-rest operating points of every class.

    Args:
        frame: A checked predictions table.
        classes: All classes of the task.
        validation: The same columns for the validation slides of every fold and seed.

    Returns:
        Class → a row for each of ``TARGET_SENSITIVITIES``, JSON-ready (undefined = None):
        ``target_sensitivity``, ``threshold`` (mean over folds and seeds), ``sensitivity``, ``specificity``,
        ``ppv``, ``npv`` (pooled over all folds and seeds), the patients that each is a share of
        (``sensitivity_patients``…) and ``chosen_on`` (``other folds``; with one fold
        ``validation``, or ``the same slides`` where there is no validation part).
    """
    if frame["fold"].nunique() > 1:
        chosen_on = "other folds"
    else:
        chosen_on = "the same slides" if validation is None else "validation"
    runs = [
        (_Run.of(judged, classes), _Run.of(_choosing(judged, of_seed, validation, chosen_on), classes))
        for _, of_seed in frame.groupby("seed", sort=True)
        for _, judged in of_seed.groupby("fold", sort=True)
    ]
    return {
        name: [{**_point(runs, place, target), "chosen_on": chosen_on} for target in TARGET_SENSITIVITIES]
        for place, name in enumerate(classes)
    }


class _Run(NamedTuple):
    """Rows of a table as arrays: class positions (N,), probabilities (N, C), patients (N,)."""

    truth: NDArray[np.int64]
    p: NDArray[np.float64]
    patients: NDArray[np.object_]

    @classmethod
    def of(cls, frame: pd.DataFrame, classes: Sequence[str]) -> Self:
        """Of a checked table, which may be empty."""
        place = {name: number for number, name in enumerate(classes)}
        return cls(
            np.array([place[name] for name in frame["label"]], dtype=np.int64),
            frame[[f"p_{name}" for name in classes]].to_numpy(dtype=np.float64),
            frame["case_id"].to_numpy(dtype=object),
        )


def _choosing(
    judged: pd.DataFrame, of_seed: pd.DataFrame, validation: pd.DataFrame | None, chosen_on: str
) -> pd.DataFrame:
    """The rows that choose the threshold for the judged ones."""
    fold, seed = judged["fold"].iloc[0], judged["seed"].iloc[0]
    choosing = judged
    if chosen_on == "other folds":
        choosing = of_seed[of_seed["fold"] != fold]
    elif chosen_on == "validation" and validation is not None:
        choosing = validation[(validation["fold"] == fold) & (validation["seed"] == seed)]
    return choosing


def _point(runs: Sequence[tuple[_Run, _Run]], place: int, target: float) -> dict[str, Any]:
    thresholds: list[float] = []
    counts = np.zeros(4)
    patients: dict[str, set[str]] = {share: set() for share in SHARES}
    for judged, choosing in runs:
        threshold = threshold_for_sensitivity(choosing.truth == place, choosing.p[:, place], target)
        if not math.isnan(threshold):
            thresholds.append(threshold)
            truth, called = judged.truth == place, judged.p[:, place] >= threshold
            counts += [(called & truth).sum(), (called & ~truth).sum(), (~called & ~truth).sum(),
                       (~called & truth).sum()]  # fmt: skip
            for share, inside in zip(SHARES, (truth, ~truth, called, ~called), strict=True):
                patients[share].update(judged.patients[inside])
    tp, fp, tn, fn = counts
    return {
        "target_sensitivity": target,
        "threshold": float(np.mean(thresholds)) if thresholds else None,
        "sensitivity": _share(tp, tp + fn),
        "specificity": _share(tn, tn + fp),
        "ppv": _share(tp, tp + fp),
        "npv": _share(tn, tn + fn),
        **{f"{share}_patients": len(found) for share, found in patients.items()},
    }


def _share(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None


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
