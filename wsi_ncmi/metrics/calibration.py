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
PRIOR_SD = 0.25
"""Standard deviation of ln T a priori: 95 % of models are at most 1.6 times too sure or too unsure."""

MIN_SLIDES = 30
"""Fewer validation slides bear no choice: of a temperature, or of an epoch."""

_PARTS = 10


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
    y_true, probabilities = np.asarray(y_true), np.asarray(probabilities)
    confidence = probabilities.max(axis=1)
    correct = (probabilities.argmax(axis=1) == y_true).astype(np.float64)
    which = bin_of(confidence, bins)
    count = np.bincount(which, minlength=bins).astype(np.float64)
    with np.errstate(invalid="ignore"):
        mean_confidence = np.bincount(which, weights=confidence, minlength=bins) / count
        accuracy = np.bincount(which, weights=correct, minlength=bins) / count
    return mean_confidence, accuracy, count


def bin_of(confidence: _Floats, bins: int = 15) -> NDArray[np.int64]:
    """The bin of each confidence, int64 (N,), counted from 0."""
    return np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)


def calibration_gaps(y_true: NDArray[np.int64], probabilities: _Floats, bins: int = 15) -> _Floats:
    """Confidence minus hit of each slide in the column of its bin, (N, bins): ECE is Σ|column sums| / N."""
    confidence = probabilities.max(axis=1)
    gap = confidence - (probabilities.argmax(axis=1) == y_true)
    return np.asarray(np.eye(bins)[bin_of(confidence, bins)] * gap[:, None])


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
    """The most probable temperature under the prior ln T ~ N(0, ``PRIOR_SD``²).

    The prior draws a fit of few slides towards 1 and leaves one of hundreds alone; with it the search needs
    no bounds. Fit it on validation slides only; on the test slides it would flatter the calibration.

    Source: the likelihood of Guo et al., arXiv 1706.04599.

    Raises:
        ValueError: No slides.
    """
    y_true, probabilities = np.asarray(y_true), np.asarray(probabilities)
    if len(y_true) == 0:
        raise ValueError("A temperature can't be fitted without slides.")
    logits = np.log(np.clip(probabilities, _SMALLEST, 1.0))
    own = logits[np.arange(len(y_true)), y_true]
    at, low, high = 0.0, -np.inf, np.inf
    # Newton's steps in ln T, halved where one would leave what the signs of the slope allow.
    for _ in range(100):
        p, sharpness = apply_temperature(probabilities, float(np.exp(at))), float(np.exp(-at))
        mean = (p * logits).sum(axis=1)
        pull = sharpness * float((mean - own).sum())
        spread = sharpness**2 * float((p * (logits - mean[:, None]) ** 2).sum())
        slope, bend = at / PRIOR_SD**2 - pull, 1.0 / PRIOR_SD**2 + pull + spread
        low, high = (low, at) if slope > 0 else (at, high)
        step = float(np.clip(-slope / bend if bend > 0 else -np.sign(slope), -1.0, 1.0))
        if abs(step) < 1e-12:
            break
        at = at + step if low < at + step < high else 0.5 * (low + high)
    return float(np.exp(at))


def proven_temperature(
    y_true: NDArray[np.int64], probabilities: _Floats, patients: Sequence[str] | NDArray[np.str_]
) -> float:
    """The temperature where it proves itself on patients that had no part in fitting it, else 1.

    Fitted on nine tenths of the patients each time, it must lower the negative log-likelihood of the last
    tenths by more than the standard error of that gain over patients. Fewer than ``MIN_SLIDES`` slides prove
    nothing; nor do slides without an error (or without a hit), since the likelihood then grows without end.

    Args:
        y_true: (N,) class positions of the validation slides.
        probabilities: (N, C) of the model.
        patients: (N,) their patients.
    """
    wrong = probabilities.argmax(axis=1) != y_true
    names, patient = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    if len(y_true) < MIN_SLIDES or len(names) < 2 or wrong.all() or not wrong.any():
        return 1.0
    gain = np.zeros(len(y_true))
    for part in range(min(_PARTS, len(names))):
        inside = patient % _PARTS == part
        temperature = fit_temperature(y_true[~inside], probabilities[~inside])
        before = nll_terms(y_true[inside], probabilities[inside])
        after = nll_terms(y_true[inside], apply_temperature(probabilities[inside], temperature))
        gain[inside] = before - after
    by_patient = np.bincount(patient, weights=gain)
    error = float(by_patient.std(ddof=1)) / np.sqrt(len(names))
    return fit_temperature(y_true, probabilities) if by_patient.mean() > error else 1.0


def recalibrate(
    frame: pd.DataFrame, classes: Sequence[str], validation: pd.DataFrame | None = None
) -> dict[str, Any] | None:
    """Calibration after a temperature that no tested slide had a part in.

    The temperature of each fold and seed is fitted on the validation predictions of that run; where there are
    none, on the out-of-fold predictions of the other folds (other patients, models of the same making). It is
    1 where it does not prove itself there (:func:`proven_temperature`).

    Args:
        frame: A checked predictions table.
        classes: All classes of the task.
        validation: The same columns for the validation slides of every fold and seed.

    Returns:
        JSON-ready ``{"fitted_on", "temperature": {"mean", "min", "max"}, "ece", "nll", "brier", "slides",
        "errors", "runs", "proven"}``: pooled over folds, means over seeds; ``slides`` and ``errors`` (of a
        run's fit) as ``temperature``; in how many of the runs the temperature proved itself. None where there
        is nothing to fit on.
    """
    if validation is None and frame["fold"].nunique() < 2:
        return None
    fits: list[tuple[float, int, int]] = []  # temperature, slides and errors among them
    values: list[tuple[float, float, float]] = []
    for seed, part in frame.groupby("seed", sort=True):
        truth, p = _arrays(part, classes)
        folds = part["fold"].to_numpy()
        calibrated = np.empty_like(p)
        for fold in sorted(set(folds.tolist())):
            judged = folds == fold
            fitted_on = part[~judged]
            if validation is not None:
                fitted_on = validation[(validation["seed"] == seed) & (validation["fold"] == fold)]
                if len(fitted_on) == 0:
                    return None
            known, of_known = _arrays(fitted_on, classes)
            temperature = proven_temperature(known, of_known, fitted_on["case_id"].to_numpy(dtype=str))
            fits.append((temperature, len(known), int((of_known.argmax(axis=1) != known).sum())))
            calibrated[judged] = apply_temperature(p[judged], temperature)
        values.append(
            (
                expected_calibration_error(truth, calibrated),
                float(nll_terms(truth, calibrated).mean()),
                float(brier_terms(truth, calibrated).mean()),
            )
        )
    ece, nll, brier = np.mean(values, axis=0).tolist()
    temperatures, slides, errors = (
        {"mean": float(np.mean(each)), "min": min(each), "max": max(each)} for each in zip(*fits, strict=True)
    )
    return {
        "fitted_on": "validation" if validation is not None else "other folds",
        "temperature": temperatures,
        "ece": ece,
        "nll": nll,
        "brier": brier,
        "slides": slides,
        "errors": errors,
        "runs": len(fits),
        "proven": sum(fit[0] != 1 for fit in fits),
    }


def _arrays(part: pd.DataFrame, classes: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    p = part[[f"p_{name}" for name in classes]].to_numpy(dtype=np.float64)
    return class_positions(part["label"].tolist(), classes), p
