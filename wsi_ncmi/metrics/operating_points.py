"""Operating points: a threshold that reaches a target sensitivity, and its specificity.

A threshold chosen on the slides that it is judged on flatters itself; here the threshold of a fold comes from
the out-of-fold predictions of the other folds of the same seed, whose patients are others. Where there is one
test part only, it comes from the validation part of the run, if that is known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

TARGET_SENSITIVITIES = (0.9, 0.95)


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
        ``ppv``, ``npv`` (pooled over all folds and seeds) and ``chosen_on`` (``other folds``; with one fold
        ``validation``, or ``the same slides`` where there is no validation part).
    """
    if frame["fold"].nunique() > 1:
        chosen_on = "other folds"
    else:
        chosen_on = "the same slides" if validation is None else "validation"
    runs = [
        (judged, _choosing(judged, of_seed, validation, chosen_on))
        for _, of_seed in frame.groupby("seed", sort=True)
        for _, judged in of_seed.groupby("fold", sort=True)
    ]
    return {
        name: [{**_point(runs, name, target), "chosen_on": chosen_on} for target in TARGET_SENSITIVITIES]
        for name in classes
    }


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


def _point(runs: Sequence[tuple[pd.DataFrame, pd.DataFrame]], name: str, target: float) -> dict[str, Any]:
    thresholds: list[float] = []
    counts = np.zeros(4)
    for judged, choosing in runs:
        positive, scores = _binary(choosing, name)
        threshold = threshold_for_sensitivity(positive, scores, target)
        if not math.isnan(threshold):
            thresholds.append(threshold)
            truth, scores = _binary(judged, name)
            called = scores >= threshold
            counts += [(called & truth).sum(), (called & ~truth).sum(), (~called & ~truth).sum(),
                       (~called & truth).sum()]  # fmt: skip
    tp, fp, tn, fn = counts
    return {
        "target_sensitivity": target,
        "threshold": float(np.mean(thresholds)) if thresholds else None,
        "sensitivity": _share(tp, tp + fn),
        "specificity": _share(tn, tn + fp),
        "ppv": _share(tp, tp + fp),
        "npv": _share(tn, tn + fn),
    }


def _binary(frame: pd.DataFrame, name: str) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    return (frame["label"] == name).to_numpy(dtype=bool), frame[f"p_{name}"].to_numpy(dtype=np.float64)


def _share(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None
