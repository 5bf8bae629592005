"""Confusion matrices as text and shares, ready for the template."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from wsi_ncmi.metrics import Evaluation

__all__ = ["ConfusionTable", "confusion_tables", "stage_table"]


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
        _confusion(name, evaluation.classes, evaluation.confusion, "slides")
        for name, evaluation in evaluations.items()
    ]


def stage_table(evaluation: Evaluation) -> ConfusionTable | None:
    """Patients by true and predicted stage; None for tasks without stages."""
    found = evaluation.staging
    if found is None:
        return None
    return _confusion("Patient stage", tuple(found["stages"]), found["confusion_matrix"], "patients")


def _confusion(name: str, classes: tuple[str, ...], counts: Any, unit: str) -> ConfusionTable:
    matrix = np.asarray(counts, dtype=np.float64)
    whole = bool(np.allclose(matrix, np.round(matrix)))

    def text(value: float) -> str:
        return f"{value:,.0f}" if whole else f"{value:,.1f}"

    sums = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, sums, out=np.zeros_like(matrix), where=sums > 0)
    wrong = matrix - np.diag(np.diag(matrix))
    sentence = f"{text(np.trace(matrix))} of {text(matrix.sum())} {unit} are on the diagonal."
    if wrong.max() > 0:
        i, j = np.unravel_index(int(wrong.argmax()), wrong.shape)
        sentence += (
            f" The most frequent error is {classes[i]} taken for {classes[j]}: "
            f"{text(wrong[i, j])} {unit[:-1] if wrong[i, j] == 1 else unit}, "
            f"{100 * shares[i, j]:.0f} % of {classes[i]}."
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
