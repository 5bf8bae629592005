"""Operating points, abstention and temperature scaling, as rows of the report."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wsi_ncmi.metrics import Evaluation
from wsi_ncmi.reporting.formatting import number, percent


@dataclass(frozen=True)
class OperatingRow:
    """One class at one target sensitivity, as text.

    Attributes:
        name: The class; the rest against it.
        target: Sensitivity that the threshold was chosen for.
        threshold: On the probability of the class, mean over folds and seeds.
        sensitivity: That was reached on slides which did not choose it.
        specificity: Beside it.
        ppv: Positive predictive value at this cohort's class shares.
        npv: Negative predictive value.
    """

    name: str
    target: str
    threshold: str
    sensitivity: str
    specificity: str
    ppv: str
    npv: str


def operating_rows(evaluation: Evaluation) -> list[OperatingRow]:
    """A row for each class and target sensitivity."""
    return [
        OperatingRow(
            name,
            percent(point["target_sensitivity"]),
            *(number(point[key]) for key in ("threshold", "sensitivity", "specificity", "ppv", "npv")),
        )
        for name, points in evaluation.operating_points.items()
        for point in points
    ]


def thresholds_chosen_on(evaluation: Evaluation) -> str:
    """``other folds``, ``validation`` or ``the same slides``; empty without operating points."""
    points = [point for of_class in evaluation.operating_points.values() for point in of_class]
    return str(points[0]["chosen_on"]) if points else ""


@dataclass(frozen=True)
class AbstentionRow:
    """What is right when only the most confident slides are decided, as text."""

    coverage: str
    threshold: str
    slides: str
    accuracy: str
    macro_f1: str


def abstention_rows(evaluation: Evaluation) -> list[AbstentionRow]:
    """A row for each share of slides that the model decides."""
    return [
        AbstentionRow(
            percent(point["coverage"]),
            number(point["threshold"]),
            f"{point['slides']:,.0f}",
            number(point["accuracy"]),
            number(point["macro_f1"]),
        )
        for point in evaluation.selective.get("points", ())
    ]


@dataclass(frozen=True)
class RecalibrationRow:
    """One measure of calibration before and after temperature scaling, as text."""

    name: str
    before: str
    after: str


_CALIBRATION = {"ece": "Calibration error", "nll": "Log loss", "brier": "Brier score"}


def recalibration_rows(evaluation: Evaluation) -> list[RecalibrationRow]:
    """Calibration error, log loss and Brier score; none where no temperature could be fitted."""
    after: Mapping[str, Any] | None = evaluation.recalibration
    if after is None:
        return []
    return [
        RecalibrationRow(name, number(evaluation.metrics[key].value), number(after[key]))
        for key, name in _CALIBRATION.items()
        if key in evaluation.metrics
    ]


def recalibration_source(evaluation: Evaluation) -> str:
    """The temperature and what it was fitted on, in a clause."""
    found = evaluation.recalibration
    if found is None:
        return ""
    fitted, where = found["temperature"], found["fitted_on"]
    span = f"{number(fitted['min'], 2)}–{number(fitted['max'], 2)}"
    on = "the validation part of each run" if where == "validation" else "the predictions of the other folds"
    return f"temperature {number(fitted['mean'], 2)} (range {span}), fitted on {on}"
