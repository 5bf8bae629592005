"""Temperature scaling and the abstention threshold.

Both are chosen on the validation slides of each fold, which no weight was fitted to; they chose the epoch, so
they are a little flattering. The test slides only measure the effect of the choice. A fold's validation
slides were training slides of the other folds, so only the seeds of one fold are averaged here: the whole
ensemble, which averages the folds too, is a little less confident than what the temperature was fitted to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.metrics.calibration import (
    apply_temperature,
    expected_calibration_error,
    fit_temperature,
    nll_terms,
)
from wsi_ncmi.metrics.confusion import class_positions
from wsi_ncmi.metrics.selective import area_under_risk_coverage, risk_coverage

if TYPE_CHECKING:
    import pandas as pd

_GROUPS = 5


@dataclass(frozen=True)
class Calibration:
    """Temperature and threshold of a model.

    Attributes:
        temperature: The mean probabilities are softened by it (1 = as they are).
        abstain_below: No decision below this largest calibrated probability; 0 = always decide.
        fitted_on: Slides that both were fitted on, in words.
        slides: Slides that it was fitted on.
    """

    temperature: float = 1.0
    abstain_below: float = 0.0
    fitted_on: str = "nothing: as the models say"
    slides: int = 0

    def apply(self, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrated probabilities of the same shape, (C,) or (N, C)."""
        if self.temperature == 1.0:
            return probabilities
        flat = np.atleast_2d(probabilities)
        return apply_temperature(flat, self.temperature).reshape(probabilities.shape)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: str) -> Calibration:
        """Reads what :meth:`to_json` gave.

        Raises:
            InputError: A number is missing or impossible.
        """
        try:
            found = cls(
                float(values["temperature"]),
                float(values["abstain_below"]),
                str(values["fitted_on"]),
                int(values["slides"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{where} has no readable calibration ({error}); export the model again."
            ) from error
        if not (0 < found.temperature < 1e6 and 0 <= found.abstain_below <= 1):
            raise InputError(
                f"{where} has the temperature {found.temperature} and the threshold "
                f"{found.abstain_below}, which "
                "can't be; export the model again."
            )
        return found


def fit_calibration(
    validation: pd.DataFrame, classes: Sequence[str], *, coverage: float = 0.9
) -> Calibration:
    """Fits the temperature, and the threshold that decides this share of the validation slides.

    A temperature is taken only where it has proven itself: fitted on the validation slides of the other folds
    (of other patients, where there is one fold) it must lower the negative log-likelihood of those of a fold,
    all folds together. A few dozen slides often do not bear even one number.

    Args:
        validation: ``slide_id, case_id, fold, seed, label, p_<class>…`` of the validation slides of every
            run.
        classes: All classes.
        coverage: Share of slides to decide, above 0 and at most 1; 1 = always decide.

    Raises:
        InputError: No slides, or an impossible coverage.
    """
    if not 0 < coverage <= 1:
        raise InputError(f"The coverage must be above 0 and at most 1, got {coverage}.")
    if len(validation) == 0:
        raise InputError("There are no validation slides to calibrate on.")
    truth, mean, groups = _mean_of_seeds(validation, classes)
    temperature = fit_temperature(truth, mean) if _helps(truth, mean, groups) else 1.0
    confidence = apply_temperature(mean, temperature).max(axis=1)
    threshold = 0.0
    if coverage < 1:
        kept = max(1, int(np.ceil(round(coverage * len(confidence), 9))))
        threshold = float(np.sort(confidence)[::-1][kept - 1])
    return Calibration(
        temperature,
        threshold,
        f"validation slides of {validation['fold'].nunique()} folds, mean of the seeds"
        + ("" if temperature != 1 else ", on which no temperature proved itself")
        + f"; the threshold answers {coverage:.0%} of them",
        len(truth),
    )


def selective_table(
    predictions: pd.DataFrame, classes: Sequence[str], calibration: Calibration
) -> dict[str, float]:
    """Coverage, accuracy and calibration error on slides that had no part in choosing the threshold.

    Args:
        predictions: Out-of-fold predictions, columns as for :func:`fit_calibration`.
        classes: All classes.
        calibration: The choice.

    Returns:
        ``slides``, ``coverage``, ``accuracy`` (all), ``accuracy_answered`` (NaN where nothing is decided),
        ``ece`` before and after, and ``aurc``.
    """
    truth, mean, _ = _mean_of_seeds(predictions, classes)
    calibrated = calibration.apply(mean)
    confidence = calibrated.max(axis=1)
    wrong = calibrated.argmax(axis=1) != truth
    answered = confidence >= calibration.abstain_below
    _, risk = risk_coverage(confidence, wrong)
    return {
        "slides": float(len(truth)),
        "coverage": float(answered.mean()),
        "accuracy": float(1 - risk[-1]),
        "accuracy_answered": float(1 - wrong[answered].mean()) if answered.any() else float("nan"),
        "ece_before": expected_calibration_error(truth, mean),
        "ece": expected_calibration_error(truth, calibrated),
        "aurc": area_under_risk_coverage(confidence, wrong),
    }


def _helps(truth: NDArray[np.int64], mean: NDArray[np.float64], groups: NDArray[np.int64]) -> bool:
    """Whether a temperature fitted on other groups lowers the negative log-likelihood of a group."""
    gain = 0.0
    for group in sorted(set(groups.tolist())):
        inside = groups == group
        if inside.all():
            return False
        temperature = fit_temperature(truth[~inside], mean[~inside])
        before = nll_terms(truth[inside], mean[inside])
        gain += float((before - nll_terms(truth[inside], apply_temperature(mean[inside], temperature))).sum())
    return gain > 0


def _mean_of_seeds(
    frame: pd.DataFrame, classes: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Truth, mean probabilities and group (fold, or a fifth of the patients) of each slide of each fold."""
    columns = [f"p_{name}" for name in classes]
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise InputError(f"The predictions of the run lack the column {missing[0]!r}; train it again.")
    slides = frame.groupby(["fold", "slide_id"], sort=True)
    mean = slides[columns].mean().to_numpy(dtype=np.float64)
    first = slides[["label", "case_id"]].first().reset_index()
    truth = class_positions(first["label"].astype(str).tolist(), classes)
    groups = first["fold"]
    if groups.nunique() < 2:
        patients = {patient: i % _GROUPS for i, patient in enumerate(sorted(set(first["case_id"])))}
        groups = first["case_id"].map(patients)
    return truth, mean / mean.sum(axis=1, keepdims=True), groups.to_numpy(dtype=np.int64)
