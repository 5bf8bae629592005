"""What one temperature would do for the probabilities (Guo et al., arXiv 1706.04599)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.metrics.calibration import (
    apply_temperature,
    brier_terms,
    expected_calibration_error,
    fit_temperature,
    nll_terms,
)
from wsi_ncmi.metrics.classification import class_positions

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["recalibrate"]


def recalibrate(
    frame: pd.DataFrame, classes: Sequence[str], validation: pd.DataFrame | None = None
) -> dict[str, Any] | None:
    """Calibration after a temperature that no tested slide had a part in.

    The temperature of each fold and seed is fitted on the validation predictions of that run; where there are
    none, on the out-of-fold predictions of the other folds (other patients, models of the same making).

    Args:
        frame: A checked predictions table.
        classes: All classes of the task.
        validation: The same columns for the validation slides of every fold and seed.

    Returns:
        JSON-ready ``{"fitted_on", "temperature": {"mean", "min", "max"}, "ece", "nll", "brier"}``, pooled
        over folds, means over seeds; None where there is nothing to fit on.
    """
    if validation is None and frame["fold"].nunique() < 2:
        return None
    temperatures: list[float] = []
    values: list[tuple[float, float, float]] = []
    for seed, part in frame.groupby("seed", sort=True):
        truth, p = _arrays(part, classes)
        folds = part["fold"].to_numpy()
        calibrated = np.empty_like(p)
        for fold in sorted(set(folds.tolist())):
            judged = folds == fold
            if validation is not None:
                of_run = validation[(validation["seed"] == seed) & (validation["fold"] == fold)]
                if len(of_run) == 0:
                    return None
                temperature = fit_temperature(*_arrays(of_run, classes))
            else:
                temperature = fit_temperature(truth[~judged], p[~judged])
            temperatures.append(temperature)
            calibrated[judged] = apply_temperature(p[judged], temperature)
        values.append(
            (
                expected_calibration_error(truth, calibrated),
                float(nll_terms(truth, calibrated).mean()),
                float(brier_terms(truth, calibrated).mean()),
            )
        )
    ece, nll, brier = np.mean(values, axis=0).tolist()
    return {
        "fitted_on": "validation" if validation is not None else "other folds",
        "temperature": {
            "mean": float(np.mean(temperatures)),
            "min": min(temperatures),
            "max": max(temperatures),
        },
        "ece": ece,
        "nll": nll,
        "brier": brier,
    }


def _arrays(part: pd.DataFrame, classes: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    p = part[[f"p_{name}" for name in classes]].to_numpy(dtype=np.float64)
    return class_positions(part["label"].tolist(), classes), p
