"""Checked labels and probabilities, and the metrics of a confusion matrix or a stack of them.

The metrics are array arithmetic over leading axes, because the bootstrap evaluates thousands of matrices;
each value equals scikit-learn's with ``labels=classes, zero_division=0``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import InputError

CONFUSION_METRICS = (
    "macro_f1",
    "weighted_f1",
    "micro_f1",
    "balanced_accuracy",
    "accuracy",
    "kappa_linear",
    "kappa_quadratic",
    "mcc",
    "kappa",
)
ORDERED_CLASSES = ("negative", "itc", "micro", "macro")
"""CAMELYON-17's classes, the only ones whose order is known without being told."""

UNORDERED = "undefined: the classes have no order (key 'order', flag --order)"
SUM_TOLERANCE = 1e-3

_Floats = NDArray[np.float64]


def class_positions(names: Sequence[str] | NDArray[np.str_], classes: Sequence[str]) -> NDArray[np.int64]:
    """Positions of class names in ``classes``, int64 (N,).

    Raises:
        InputError: A name outside ``classes``, or no names at all.
    """
    index = {str(name): i for i, name in enumerate(classes)}
    unknown = sorted({str(name) for name in names} - set(index))
    if unknown:
        raise InputError(f"Class {unknown[0]!r} is not among the classes of the task ({', '.join(index)}).")
    if len(names) == 0:
        raise InputError("There are no predictions to evaluate.")
    return np.asarray([index[str(name)] for name in names], dtype=np.int64)


def class_ranks(classes: Sequence[str], order: Sequence[str] = ()) -> NDArray[np.int64] | None:
    """Rank of each class for the weighted kappas, int64 (C,); None where the classes have no order.

    Args:
        classes: All classes of the task.
        order: The same classes from the least to the most; empty = CAMELYON-17's have theirs, others none.

    Raises:
        InputError: ``order`` lacks a class, or names another or one twice.
    """
    if not order:
        if not set(classes) <= set(ORDERED_CLASSES):
            return None
        order = [name for name in ORDERED_CLASSES if name in classes]
    if sorted(order) != sorted(classes):
        raise InputError(
            f"The order {', '.join(order)} must name each class of the task once ({', '.join(classes)})."
        )
    return np.asarray([list(order).index(name) for name in classes], dtype=np.int64)


def check_probabilities(probabilities: NDArray[np.floating], num_classes: int) -> NDArray[np.float64]:
    """Probabilities as float64 (N, C), checked and not changed.

    Raises:
        InputError: Wrong shape, NaN, infinity, below 0, or a row that misses 1 by more than 0.001.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 2 or p.shape[1] != num_classes:
        raise InputError(
            f"Probabilities of {num_classes} classes have the shape {p.shape}, not (N, {num_classes})."
        )
    if not np.isfinite(p).all():
        row = int(np.flatnonzero(~np.isfinite(p).all(axis=1))[0])
        raise InputError(f"The probabilities of row {row} hold NaN or infinity: {p[row].tolist()}.")
    sums = p.sum(axis=1)
    wrong = np.flatnonzero((np.abs(sums - 1.0) > SUM_TOLERANCE) | (p < 0).any(axis=1))
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            f"The probabilities of row {row} are {p[row].tolist()} (sum {sums[row]:.4g}): each must lie "
            "in 0–1 and a row must sum to 1."
        )
    return p


def confusion_matrix(y_true: NDArray[np.int64], y_pred: NDArray[np.int64], num_classes: int) -> _Floats:
    """Counts ``matrix[true, predicted]`` as float64 (C, C)."""
    true, predicted = np.asarray(y_true), np.asarray(y_pred)
    if true.dtype.kind not in "iu" or predicted.dtype.kind not in "iu":
        raise InputError("A confusion matrix is made of class numbers; turn names into their positions.")
    flat = np.bincount(true * num_classes + predicted, minlength=num_classes**2)
    return flat.reshape(num_classes, num_classes).astype(np.float64)


def confusion_terms(
    y_true: NDArray[np.int64],
    y_pred: NDArray[np.int64],
    num_classes: int,
    ranks: NDArray[np.int64] | None = None,
) -> _Floats:
    """Terms of each slide whose sums over slides make a :class:`Tally`.

    Args:
        y_true: (N,) class positions.
        y_pred: (N,) predicted ones.
        num_classes: C.
        ranks: Of the classes (:func:`class_ranks`); None = they have no order.

    Returns:
        (N, 3 C + 2): the class that was hit, the true and the predicted class, each one-hot, and by how many
        ranks the two differ and its square.
    """
    one_hot = np.eye(num_classes)
    apart = np.zeros(len(y_true)) if ranks is None else np.abs(ranks[y_true] - ranks[y_pred]) * 1.0
    hits = one_hot[y_true] * (y_true == y_pred)[:, None]
    columns = (hits, one_hot[y_true], one_hot[y_pred], apart[:, None], apart[:, None] ** 2)
    return np.concatenate(columns, axis=1)


@dataclass(frozen=True)
class Tally:
    """What the metrics need of confusion matrices: grows with the classes, not with their square.

    Attributes:
        hits: Slides of each class that were called so, (..., C).
        support: Slides of each class, (..., C).
        predicted: Slides called so, (..., C).
        apart: Sum over slides of the ranks between truth and prediction, and of their squares, (..., 2).
        ranks: Of the classes; None = they have no order.
    """

    hits: _Floats
    support: _Floats
    predicted: _Floats
    apart: _Floats
    ranks: NDArray[np.int64] | None = None

    @classmethod
    def of_sums(cls, sums: _Floats, ranks: NDArray[np.int64] | None = None) -> Self:
        """From (..., 3 C + 2) sums of :func:`confusion_terms`."""
        hits, support, predicted = np.split(sums[..., :-2], 3, axis=-1)
        return cls(hits, support, predicted, sums[..., -2:], ranks)

    @classmethod
    def of_matrices(cls, matrices: _Floats, ranks: NDArray[np.int64] | None = None) -> Self:
        """From (..., C, C) counts ``[true, predicted]``."""
        hits = np.diagonal(matrices, axis1=-2, axis2=-1)
        apart = np.zeros((*matrices.shape[:-2], 2))
        if ranks is not None:
            between = np.abs(np.subtract.outer(ranks, ranks)) * 1.0
            apart = np.einsum("...ij,ijk->...k", matrices, np.stack([between, between**2], axis=-1))
        return cls(hits, matrices.sum(axis=-1), matrices.sum(axis=-2), apart, ranks)

    def per_class(self) -> dict[str, _Floats]:
        """``precision``, ``recall``, ``f1``, ``support``, each (..., C); 0 where the denominator is 0."""
        return {
            "precision": _ratio(self.hits, self.predicted),
            "recall": _ratio(self.hits, self.support),
            "f1": _ratio(2.0 * self.hits, self.support + self.predicted),
            "support": self.support,
        }

    def overall(self) -> dict[str, _Floats]:
        """The metrics of ``CONFUSION_METRICS``.

        Returns:
            Name → (...) values. NaN where the metric is undefined: Cohen's kappa when truth and prediction
            are the same single class, the weighted kappas of classes without order, everything where there
            are no slides. ``macro_f1`` averages over all C classes, also those without a slide
            (``zero_division=0``); ``balanced_accuracy`` over the classes that have slides, as scikit-learn
            does.
        """
        table = self.per_class()
        total = self.support.sum(axis=-1)
        hits = self.hits.sum(axis=-1)
        by_chance = (self.support * self.predicted).sum(axis=-1)
        accuracy = _ratio(hits, total)
        present = self.support > 0
        # Gorodkin's multiclass R_K; 0 where truth or prediction is constant, as in scikit-learn.
        spread = (total**2 - (self.support**2).sum(axis=-1)) * (total**2 - (self.predicted**2).sum(axis=-1))
        values = {
            "macro_f1": table["f1"].mean(axis=-1),
            "weighted_f1": _ratio((table["f1"] * self.support).sum(axis=-1), total),
            "micro_f1": accuracy,
            "balanced_accuracy": _ratio((table["recall"] * present).sum(axis=-1), present.sum(axis=-1)),
            "accuracy": accuracy,
            "kappa_linear": self._weighted_kappa(1),
            "kappa_quadratic": self._weighted_kappa(2),
            "mcc": _ratio(hits * total - by_chance, np.sqrt(spread)),
            "kappa": _kappa((total - hits) * total, total**2 - by_chance),
        }
        return {name: np.where(total == 0, np.nan, value) for name, value in values.items()}

    def _weighted_kappa(self, power: int) -> _Floats:
        total = self.support.sum(axis=-1)
        if self.ranks is None:
            return np.full(total.shape, np.nan)
        weights = np.abs(np.subtract.outer(self.ranks, self.ranks)) ** power * 1.0
        expected = ((self.support @ weights) * self.predicted).sum(axis=-1)
        return _kappa(self.apart[..., power - 1] * total, expected)


def per_class_metrics(matrices: _Floats) -> dict[str, _Floats]:
    """:meth:`Tally.per_class` of (..., C, C) counts ``[true, predicted]``."""
    return Tally.of_matrices(matrices).per_class()


def confusion_metrics(matrices: _Floats, ranks: NDArray[np.int64] | None = None) -> dict[str, _Floats]:
    """:meth:`Tally.overall` of (..., C, C) counts ``[true, predicted]``."""
    return Tally.of_matrices(matrices, ranks).overall()


def _kappa(observed: _Floats, expected: _Floats) -> _Floats:
    # Cohen 1968: 1 − Σ w·observed / Σ w·expected with disagreement weights w.
    return np.where(expected > 0, 1.0 - _ratio(observed, expected), np.nan)


def _ratio(numerator: _Floats, denominator: _Floats) -> _Floats:
    return np.divide(
        numerator,
        denominator,
        out=np.zeros(np.broadcast(numerator, denominator).shape),
        where=denominator > 0,
    )
