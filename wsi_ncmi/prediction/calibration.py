"""Temperature scaling and the abstention threshold.

Both are chosen on the validation slides of each fold, which no weight was fitted to; they chose the epoch, so
they are a little flattering. The test slides only measure the effect of the choice. A fold's validation
slides were training slides of the other folds, so only the seeds of one fold are averaged here: the whole
ensemble, which averages the folds too, is a little less confident than what the temperature was fitted to.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import InputError, counted
from wsi_ncmi.metrics.calibration import (
    apply_temperature,
    expected_calibration_error,
    proven_temperature,
)
from wsi_ncmi.metrics.confusion import class_positions
from wsi_ncmi.metrics.selective import area_under_risk_coverage, risk_coverage

if TYPE_CHECKING:
    import pandas as pd

_MOST_SHOWN = 0.999  # the last bound that one decimal of a percentage can tell from certainty
_UNVALIDATED = 0.99  # shown at most of a model that has no validation slides
_OLD_LIMITS = (0.05, 20.0)  # of the search of 0.1.0


def succession(n: int, wrong: int) -> float:
    """Laplace's rule of succession: probability that the next is right after ``n``, so many of them wrong."""
    return (n - wrong + 1) / (n + 2)


def supported(patients: NDArray[np.str_], confidence: NDArray[np.float64], wrong: NDArray[np.bool_]) -> float:
    """The largest probability of a class that patients predicted as it bear out, at least 1/3.

    Args:
        patients: (N,) of the slides predicted as the class.
        confidence: (N,) probability of the class.
        wrong: (N,) whether the class is another.
    """
    names, patient = np.unique(patients, return_inverse=True)
    surest = np.full(len(names), -np.inf)
    np.maximum.at(surest, patient, confidence)
    failed = (np.bincount(patient, weights=wrong, minlength=len(names)) > 0)[np.argsort(-surest)]
    n = len(names)
    until = int(failed.argmax()) + 1 if failed.any() else n
    # Of all, and of the surest down to the first error.
    return max(succession(n, int(failed.sum())), succession(until, int(failed.any())))


@dataclass(frozen=True)
class Calibration:
    """Temperature and threshold of a model.

    Attributes:
        temperature: The mean probabilities are softened by it (1 = as they are).
        abstain_below: No decision below this largest calibrated probability; 0 = always decide.
        fitted_on: Slides that both were fitted on, in words.
        slides: How many those are.
        errors: How many of them a fold's models got wrong; None where a bundle of 0.1.0 doesn't say.
        supported: Class → largest probability that those slides bear out; empty in a bundle of 0.1.0.
    """

    temperature: float = 1.0
    abstain_below: float = 0.0
    fitted_on: str = "nothing: as the models say"
    slides: int = 0
    errors: int | None = None
    supported: Mapping[str, float] = field(default_factory=dict)

    @property
    def at_limit(self) -> str:
        """A sentence where 0.1.0 left the temperature at a limit of its search; else empty."""
        if self.errors is not None or not any(
            abs(self.temperature / limit - 1) < 1e-3 for limit in _OLD_LIMITS
        ):
            return ""
        return (
            f"The temperature {self.temperature:.3f} is a limit of the search of wsi-ncmi 0.1.0, where "
            "too few slides or errors told where to stop: don't trust its probabilities; export the model "
            "again from its run."
        )

    @property
    def basis(self) -> str:
        """What the probabilities rest on and how far they are shown, in words."""
        if not self.slides:
            most = f"{_UNVALIDATED:.0%}".replace("%", " %")
            return f"No validation slides stand behind the probabilities; none is shown above {most}."
        wrong = "" if self.errors is None else f", {self.errors or 'none'} of them wrong"
        most = ", ".join(f"{name} {100 * p:.1f} %" for name, p in self.supported.items())
        of = f", after Laplace's rule of succession ({most})" if most else ""
        return (
            f"The probabilities rest on {counted(self.slides, 'validation slide')}{wrong}; beyond what those "
            f"bear out{of}, a bound is shown in their place."
        )

    @property
    def threshold(self) -> str:
        """``abstain_below`` with the digits that tell it from 1."""
        return f"{self.abstain_below:.{3 if self.abstain_below < 0.9995 else 9}f}"

    def most(self, name: str) -> float:
        """The largest probability of a class that the validation slides bear out."""
        if not self.slides:
            return _UNVALIDATED
        # 0.1.0 counted slides alone, of all classes together.
        return self.supported.get(name, 0.5) if self.supported else succession(self.slides, 0)

    def shown(self, probability: float, prediction: str) -> str:
        """A probability of a slide as percentage, ``> 94.1 %`` or ``< 5.9 %`` beyond what can be supported.

        Args:
            probability: Calibrated, of any class.
            prediction: The class predicted for the slide, whose validation slides count.
        """
        bound = min(math.floor(1000 * self.most(prediction)) / 1000, _MOST_SHOWN)
        if probability > bound:
            return f"> {100 * bound:.1f} %"
        if probability < 1 - bound:
            return f"< {100 * (1 - bound):.1f} %"
        return f"{100 * probability:.1f} %"

    def apply(self, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrated probabilities of the same shape, (C,) or (N, C)."""
        if self.temperature == 1.0:
            return probabilities
        flat = np.atleast_2d(probabilities)
        return apply_temperature(flat, self.temperature).reshape(probabilities.shape)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; a bundle of 0.1.0 keeps its form, which is part of the model's digest."""
        content = asdict(self)
        if self.errors is None:
            del content["errors"], content["supported"]
        return content

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
                None if values.get("errors") is None else int(values["errors"]),
                {str(name): float(p) for name, p in dict(values.get("supported") or {}).items()},
            )
        except (KeyError, OverflowError, TypeError, ValueError) as error:
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

    A temperature is taken only where it has proven itself on other patients: a few dozen slides often do not
    bear even one number (:func:`wsi_ncmi.metrics.calibration.proven_temperature`).

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
    truth, mean, slides = _mean_of_seeds(validation, classes)
    temperature = proven_temperature(truth, mean, slides["case_id"].to_numpy(dtype=str))
    confidence = Calibration(temperature).apply(mean).max(axis=1)
    predicted = mean.argmax(axis=1)
    wrong = predicted != truth
    threshold = 0.0
    if coverage < 1:
        kept = max(1, int(np.ceil(round(coverage * len(confidence), 9))))
        threshold = float(np.sort(confidence)[::-1][kept - 1])
    return Calibration(
        temperature,
        threshold,
        f"validation slides of {counted(validation['fold'].nunique(), 'fold')}, mean of the seeds"
        + ("" if temperature != 1 else ", on which no temperature proved itself")
        + f"; the threshold answers {coverage:.0%} of them",
        slides["slide_id"].nunique(),
        slides.loc[wrong, "slide_id"].nunique(),
        {
            name: supported(slides["case_id"].to_numpy(dtype=str)[of], confidence[of], wrong[of])
            for name, of in zip(classes, (predicted == i for i in range(len(classes))), strict=True)
        },
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


def _mean_of_seeds(
    frame: pd.DataFrame, classes: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.float64], pd.DataFrame]:
    """Truth, mean probabilities, and ``slide_id`` and ``case_id`` of each slide of each fold."""
    columns = [f"p_{name}" for name in classes]
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise InputError(f"The predictions of the run lack the column {missing[0]!r}; train it again.")
    groups = frame.groupby(["fold", "slide_id"], sort=True)
    mean = groups[columns].mean().to_numpy(dtype=np.float64)
    first = groups[["label", "case_id"]].first().reset_index()
    truth = class_positions(first["label"].astype(str).tolist(), classes)
    return truth, mean / mean.sum(axis=1, keepdims=True), first
