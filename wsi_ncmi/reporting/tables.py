"""Rows of the report's tables, ready for the template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wsi_ncmi.metrics import Estimate, Evaluation
from wsi_ncmi.reporting.content import ReportInput
from wsi_ncmi.reporting.wording import METRIC_WORDS, MetricWords, interval, number, words_of

__all__ = [
    "Cell",
    "SpreadRow",
    "cell",
    "centre_rows",
    "class_rows",
    "headline_companions",
    "metric_rows",
    "part_rows",
    "spread_rows",
]


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


_SPREAD_METRICS = ("macro_f1", "balanced_accuracy", "accuracy", "auroc_macro_ovr", "kappa_quadratic", "mcc")


def spread_rows(evaluation: Evaluation) -> list[SpreadRow]:
    """Rows for the metrics that vary; none where there is but one fold and one seed."""
    if evaluation.n_folds < 2 and len(evaluation.seeds) < 2:
        return []
    rows = []
    for name in _SPREAD_METRICS:
        cells = []
        for spread in (evaluation.over_folds.get(name), evaluation.over_seeds.get(name)):
            several = spread is not None and spread.n > 1
            cells += [number(spread.mean), number(spread.sd)] if spread and several else ["–", "–"]
        if cells != ["–"] * 4:
            rows.append(SpreadRow(words_of(name), *cells))
    return rows


def headline_companions() -> tuple[str, ...]:
    """Metrics that stand beside the headline, as far as the evaluation has them."""
    return ("balanced_accuracy", "auroc_macro_ovr", "accuracy", "kappa_quadratic", "ece", "ncmi")


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
