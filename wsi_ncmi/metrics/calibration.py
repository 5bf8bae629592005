"""Calibration of probabilities: Brier score, log loss, calibration error, and temperature scaling.

Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, arXiv 1706.04599.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.metrics.confusion import class_positions

if TYPE_CHECKING:
    import pandas as pd


_Floats = NDArray[np.float64]
# scikit-learn's log_loss clips at the same place: the machine epsilon of float64.
_SMALLEST = float(np.finfo(np.float64).eps)


def brier_terms(y_true: NDArray[np.int64], probabilities: _Floats) -> _Floats:
    """Squared distance of each prediction to the one-hot truth, (N,); the mean is the Brier score (0–2)."""
    target = np.eye(probabilities.shape[1])[y_true]
    return np.asarray(((probabilities - target) ** 2).sum(axis=1), dtype=np.float64)


def nll_terms(y_true: NDArray[np.int64], probabilities: _Floats) -> _Floats:
    """Negative log-probability of each slide's true class in nats, (N,), clipped at the float64 epsilon."""
    chosen = probabilities[np.arange(len(y_true)), y_true]
    return -np.log(np.clip(chosen, _SMALLEST, 1.0))


def reliability_bins(
    y_true: NDArray[np.int64], probabilities: _Floats, bins: int = 15
) -> tuple[_Floats, _Floats, _Floats]:
    """Accuracy against confidence in equal-width bins of the largest probability.

    Returns:
        ``(confidence, accuracy, count)``, each (bins,); means are NaN in empty bins. A bin is open on the
        left and closed on the right.
    """
    confidence = probabilities.max(axis=1)
    correct = (probabilities.argmax(axis=1) == y_true).astype(np.float64)
    which = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    count = np.bincount(which, minlength=bins).astype(np.float64)
    with np.errstate(invalid="ignore"):
        mean_confidence = np.bincount(which, weights=confidence, minlength=bins) / count
        accuracy = np.bincount(which, weights=correct, minlength=bins) / count
    return mean_confidence, accuracy, count


def expected_calibration_error(y_true: NDArray[np.int64], probabilities: _Floats, bins: int = 15) -> float:
    """Mean gap between confidence and accuracy over equal-width bins (Guo et al., arXiv 1706.04599)."""
    if len(y_true) == 0:
        return float("nan")
    confidence, accuracy, count = reliability_bins(y_true, probabilities, bins)
    used = count > 0
    return float((count[used] * np.abs(confidence[used] - accuracy[used])).sum() / count.sum())


def apply_temperature(probabilities: _Floats, temperature: float) -> _Floats:
    """Softmax of log-probabilities divided by ``temperature`` (> 1 softens); a slide's ranking stays."""
    logits = np.log(np.clip(probabilities, _SMALLEST, 1.0)) / temperature
    logits -= logits.max(axis=1, keepdims=True)
    odds = np.exp(logits)
    return np.asarray(odds / odds.sum(axis=1, keepdims=True), dtype=np.float64)


def fit_temperature(y_true: NDArray[np.int64], probabilities: _Floats) -> float:
    """The temperature in [0.05, 20] with the least negative log-likelihood (Guo et al., arXiv 1706.04599).

    Fit it on validation slides only; on the test slides it would flatter the calibration.

    Raises:
        ValueError: No slides.
    """
    from scipy.optimize import minimize_scalar

    if len(y_true) == 0:
        raise ValueError("A temperature can't be fitted without slides.")

    def loss(log_temperature: float) -> float:
        return float(
            nll_terms(y_true, apply_temperature(probabilities, float(np.exp(log_temperature)))).mean()
        )

    found = minimize_scalar(
        loss, bounds=(np.log(0.05), np.log(20.0)), method="bounded", options={"xatol": 1e-6}
    )
    return float(np.exp(found.x))


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
