"""Tables of the report: metrics, classes, confusion, operating points, abstention, recalibration."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.metrics import Estimate, Evaluation
from wsi_ncmi.metrics.resampling import exact_interval
from wsi_ncmi.metrics.selective import SHARES
from wsi_ncmi.reporting.formatting import (
    METRIC_WORDS,
    MetricWords,
    count,
    interval,
    number,
    percent,
    probability,
    words_of,
)
from wsi_ncmi.reporting.report_input import ReportInput

_MOST_NAMED = 3


@dataclass(frozen=True)
class ConfusionTable:
    """A confusion matrix as text and shares.

    Attributes:
        name: The loss, or what the matrix is about.
        classes: In order.
        counts: Rows of counts of slides (or patients) as text, mean over seeds.
        shares: Rows of shares of the true class, 0 … 1.
        totals: Row sums as text.
        predicted: Column sums as text.
        sentence: What the matrix says, for those who do not see it.
    """

    name: str
    classes: tuple[str, ...]
    counts: list[list[str]]
    shares: list[list[float]]
    totals: list[str]
    predicted: list[str]
    sentence: str


def confusion_tables(evaluations: Mapping[str, Evaluation]) -> list[ConfusionTable]:
    """One table a loss."""
    return [
        _confusion(name, evaluation.classes, evaluation.confusion, "slides", evaluation.order)
        for name, evaluation in evaluations.items()
    ]


def stage_table(evaluation: Evaluation) -> ConfusionTable | None:
    """Patients by true and predicted stage; None for tasks without stages."""
    found = evaluation.staging
    if found is None:
        return None
    stages = tuple(found["stages"])
    return _confusion("Patient stage", stages, found["confusion_matrix"], "patients", stages)


def _confusion(
    name: str, classes: tuple[str, ...], counts: Any, unit: str, order: tuple[str, ...]
) -> ConfusionTable:
    matrix = np.asarray(counts, dtype=np.float64)
    whole = bool(np.allclose(matrix, np.round(matrix)))

    def text(value: float) -> str:
        return f"{value:,.0f}" if whole else f"{value:,.1f}"

    sums = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, sums, out=np.zeros_like(matrix), where=sums > 0)
    sentence = f"{text(np.trace(matrix))} of {text(matrix.sum())} {unit} are on the diagonal."
    worst = _most_frequent(matrix, [order.index(name) for name in classes] if order else None)
    if worst:
        often = matrix[worst[0]]
        errors = [
            f"{classes[i]} taken for {classes[j]} ({percent(shares[i, j])} of {classes[i]})" for i, j in worst
        ]
        if len(errors) > _MOST_NAMED:
            errors[_MOST_NAMED:] = [f"{len(errors) - _MOST_NAMED} more"]
        verb, each = ("errors are", " each") if errors[1:] else ("error is", "")
        sentence += (
            f" The most frequent {verb} {'; '.join(errors)}: "
            f"{text(often)} {unit[:-1] if often == 1 else unit}{each}."
        )
    return ConfusionTable(
        name=name,
        classes=classes,
        counts=[[text(value) for value in row] for row in matrix],
        shares=[[float(value) for value in row] for row in shares],
        totals=[text(value) for value in matrix.sum(axis=1)],
        predicted=[text(value) for value in matrix.sum(axis=0)],
        sentence=sentence,
    )


def _most_frequent(matrix: NDArray[np.float64], ranks: Sequence[int] | None) -> list[tuple[int, int]]:
    """The errors that no other is more frequent than, the gravest first.

    Graver is what is farther off in the order of the classes, then what takes the later class for the earlier
    (a missed finding, where known scales are listed), then what is the larger share of its class.
    """
    errors = matrix - np.diag(np.diag(matrix))
    if errors.max() <= 0:
        return []
    found = [(int(i), int(j)) for i, j in np.argwhere(np.isclose(errors, errors.max()))]
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1e-12)
    rank = ranks or range(len(matrix))

    def grave(error: tuple[int, int]) -> tuple[float, ...]:
        missed = rank[error[0]] - rank[error[1]]
        return abs(missed) if ranks else 0.0, float(missed > 0), share[error]

    return sorted(found, key=grave, reverse=True)


@dataclass(frozen=True)
class Cell:
    """An estimate as text, with what the interval bar needs.

    Attributes:
        value: The number as text.
        interval: Its interval as text, or ``""``.
        reason: Why something is undefined, or ``""``.
        position: Value, low and high within 0 … 1 for the bar; None where no bar is drawn.
    """

    value: str
    interval: str
    reason: str
    position: tuple[float, float, float] | None


def cell(estimate: Estimate, *, unit_range: bool = True) -> Cell:
    """Prepares an estimate for a table."""
    bounds = np.array([estimate.value, estimate.ci_low, estimate.ci_high])
    position = None
    if unit_range and np.isfinite(bounds).all() and bounds.min() >= 0 and bounds.max() <= 1:
        position = (float(bounds[0]), float(bounds[1]), float(bounds[2]))
    return Cell(number(estimate.value), interval(estimate), estimate.reason, position)


@dataclass(frozen=True)
class MetricRow:
    """One metric: its words, and a cell for each loss."""

    key: str
    words: MetricWords
    cells: tuple[Cell | None, ...]


def metric_rows(evaluations: Mapping[str, Evaluation]) -> list[MetricRow]:
    """Every metric that any evaluation has, the headline first."""
    present = {name for evaluation in evaluations.values() for name in evaluation.metrics}
    if not any(evaluation.order for evaluation in evaluations.values()):
        present -= {"kappa_linear", "kappa_quadratic"}
    ordered = [name for name in METRIC_WORDS if name in present]
    ordered += sorted(present - set(ordered))
    rows = []
    for name in ordered:
        words = words_of(name)
        cells = [
            cell(evaluation.metrics[name], unit_range=words.unit_range)
            if name in evaluation.metrics
            else None
            for evaluation in evaluations.values()
        ]
        rows.append(MetricRow(name, words, tuple(cells)))
    return rows


@dataclass(frozen=True)
class SpreadRow:
    """Mean and standard deviation of a metric over folds and over seeds, as text; ``–`` = only one."""

    words: MetricWords
    folds: str
    folds_sd: str
    seeds: str
    seeds_sd: str


_SPREAD_METRICS = ("macro_f1", "balanced_accuracy", "accuracy", "auroc_macro_ovr")


def spread_rows(evaluation: Evaluation) -> list[SpreadRow]:
    """Rows for the metrics that vary; none where there is but one fold and one seed."""
    if evaluation.n_folds < 2 and len(evaluation.seeds) < 2:
        return []
    rows = []
    for name in (*_SPREAD_METRICS, _kappa(evaluation), "mcc"):
        cells = []
        for spread in (evaluation.over_folds.get(name), evaluation.over_seeds.get(name)):
            several = spread is not None and spread.n > 1
            cells += [number(spread.mean), number(spread.sd)] if spread and several else ["–", "–"]
        if cells != ["–"] * 4:
            rows.append(SpreadRow(words_of(name), *cells))
    return rows


def headline_companions(evaluation: Evaluation) -> tuple[str, ...]:
    """Metrics that stand beside the headline, as far as the evaluation has them."""
    names = ("balanced_accuracy", "auroc_macro_ovr", "accuracy", _kappa(evaluation), "ece", "ncmi")
    return tuple(name for name in names if name in evaluation.metrics)


def _kappa(evaluation: Evaluation) -> str:
    return "kappa_quadratic" if evaluation.order else "kappa"


_CLASS_METRICS = ("f1", "precision", "recall", "auroc", "auprc")


@dataclass(frozen=True)
class GroupRow:
    """A class or a centre with its sizes and estimates."""

    name: str
    slides: int
    patients: int
    cells: Mapping[str, Cell]


def class_rows(evaluation: Evaluation) -> list[GroupRow]:
    """A row a class, in the order of the task."""
    return [
        GroupRow(
            name,
            evaluation.support.get(name, 0),
            evaluation.patients_of.get(name, 0),
            {metric: cell(estimates[metric]) for metric in _CLASS_METRICS if metric in estimates},
        )
        for name, estimates in evaluation.per_class.items()
    ]


def centre_rows(evaluation: Evaluation) -> list[GroupRow]:
    """A row a centre; none where centres are not known."""
    return [
        GroupRow(
            name, *evaluation.centre_sizes[name], {metric: cell(found) for metric, found in estimates.items()}
        )
        for name, estimates in evaluation.per_centre.items()
    ]


def part_rows(data: ReportInput) -> list[tuple[str, list[tuple[int, int]]]]:
    """Fold → (slides, patients) of train, validation and test; empty without split counts."""
    counts: Sequence[Mapping[str, Mapping[str, Any]]] = (data.splits or {}).get("counts", ())
    return [
        (
            f"Fold {k}",
            [
                (int(fold[part]["slides"]), int(fold[part]["patients"]))
                for part in ("train", "validation", "test")
            ],
        )
        for k, fold in enumerate(counts)
    ]


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
            probability(point["threshold"]),
            *(_bounded(point[share], point.get(f"{share}_patients")) for share in SHARES),
        )
        for name, points in evaluation.operating_points.items()
        for point in points
    ]


def _bounded(share: float | None, patients: int | None) -> str:
    """``1.000 (≥ 0.815)``: a share of 0 or 1 with its exact bound, any other alone."""
    if share not in (0.0, 1.0) or not patients:
        return number(share)
    low, high = exact_interval(share, patients)
    return f"{number(share)} (≥ {number(low)})" if share else f"{number(share)} (≤ {number(high)})"


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
            probability(point["threshold"]),
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
    """The temperature, what it was fitted on and on how many slides and errors it rests, in a clause."""
    found = evaluation.recalibration
    if found is None:
        return ""
    fitted, where = found["temperature"], found["fitted_on"]
    span = f"{number(fitted['min'], 2)}–{number(fitted['max'], 2)}"
    on = "the validation part of each run" if where == "validation" else "the predictions of the other folds"
    told = f"temperature {number(fitted['mean'], 2)} (range {span}), fitted on {on}"
    if found.get("runs") is None:
        return told
    slides, errors = (_span(found[key]) for key in ("slides", "errors"))
    return (
        f"{told}: {slides} slides with {errors} errors a run; it proved itself in {found['proven']} of "
        f"{count(found['runs'], 'run')} and is 1 in the others"
    )


def _span(found: Mapping[str, Any]) -> str:
    return f"{found['min']:,}" if found["min"] == found["max"] else f"{found['min']:,}–{found['max']:,}"
