"""Operating points: a threshold that keeps a sensitivity, and what it costs in specificity.

A threshold chosen on the slides that it is judged on flatters itself; here the threshold of a fold comes from
the out-of-fold predictions of the other folds of the same seed, whose patients are others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TARGET_SENSITIVITIES", "operating_points", "threshold_for_sensitivity"]

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


def operating_points(frame: pd.DataFrame, classes: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """One-vs-rest operating points of every class.

    Args:
        frame: A checked predictions table.
        classes: All classes of the task.

    Returns:
        Class → a row for each of ``TARGET_SENSITIVITIES``, JSON-ready (undefined = None):
        ``target_sensitivity``, ``threshold`` (mean over folds and seeds), ``sensitivity``, ``specificity``,
        ``ppv``, ``npv`` (pooled over all folds and seeds) and ``chosen_on`` (``other folds``, or ``the same
        slides`` where there is one fold).
    """
    several = frame["fold"].nunique() > 1
    seeds = [part for _, part in frame.groupby("seed", sort=True)]
    return {
        name: [_point(seeds, name, target, several=several) for target in TARGET_SENSITIVITIES]
        for name in classes
    }


def _point(seeds: Sequence[pd.DataFrame], name: str, target: float, *, several: bool) -> dict[str, Any]:
    thresholds: list[float] = []
    counts = np.zeros(4)
    for part in seeds:
        positive, scores = (part["label"] == name).to_numpy(), part[f"p_{name}"].to_numpy(dtype=np.float64)
        for fold in sorted(set(part["fold"])):
            judged = (part["fold"] == fold).to_numpy()
            chosen_on = ~judged if several else judged
            threshold = threshold_for_sensitivity(positive[chosen_on], scores[chosen_on], target)
            if math.isnan(threshold):
                continue
            thresholds.append(threshold)
            called = scores[judged] >= threshold
            truth = positive[judged]
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
        "chosen_on": "other folds" if several else "the same slides",
    }


def _share(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None
