"""Checked labels and probabilities, and the metrics of a confusion matrix or a stack of them.

The metrics are array arithmetic over leading axes, because the bootstrap evaluates thousands of matrices;
each value equals scikit-learn's with ``labels=classes, zero_division=0``.
"""

from collections.abc import Sequence

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


def per_class_metrics(matrices: _Floats) -> dict[str, _Floats]:
    """Precision, recall, F1 and support of each class.

    Args:
        matrices: (..., C, C) counts ``[true, predicted]``.

    Returns:
        ``precision``, ``recall``, ``f1``, ``support``, each (..., C); 0 where the denominator is 0.
    """
    hits = np.diagonal(matrices, axis1=-2, axis2=-1)
    support = matrices.sum(axis=-1)
    predicted = matrices.sum(axis=-2)
    return {
        "precision": _ratio(hits, predicted),
        "recall": _ratio(hits, support),
        "f1": _ratio(2.0 * hits, support + predicted),
        "support": support,
    }


def confusion_metrics(matrices: _Floats, ranks: NDArray[np.int64] | None = None) -> dict[str, _Floats]:
    """The metrics of ``CONFUSION_METRICS`` of each matrix.

    Args:
        matrices: (..., C, C) counts ``[true, predicted]``.
        ranks: Of the classes (:func:`class_ranks`); None = they have no order.

    Returns:
        Name → (...) values. NaN where the metric is undefined: Cohen's kappa when truth and prediction are
        the same single class, the weighted kappas of classes without order, everything when the matrix is
        empty. ``macro_f1`` averages over all C classes,
        also those without a slide (``zero_division=0``); ``balanced_accuracy`` over the classes that have
        slides, as scikit-learn does.
    """
    table = per_class_metrics(matrices)
    total = matrices.sum(axis=(-2, -1))
    empty = total == 0
    accuracy = _ratio(np.trace(matrices, axis1=-2, axis2=-1), total)
    present = table["support"] > 0
    different = 1.0 - np.eye(matrices.shape[-1])
    apart = (
        np.full_like(different, np.nan) if ranks is None else np.abs(np.subtract.outer(ranks, ranks)) * 1.0
    )
    values = {
        "macro_f1": table["f1"].mean(axis=-1),
        "weighted_f1": _ratio((table["f1"] * table["support"]).sum(axis=-1), total),
        "micro_f1": accuracy,
        "balanced_accuracy": _ratio((table["recall"] * present).sum(axis=-1), present.sum(axis=-1)),
        "accuracy": accuracy,
        "kappa_linear": _kappa(matrices, apart),
        "kappa_quadratic": _kappa(matrices, apart**2),
        "mcc": _mcc(matrices),
        "kappa": _kappa(matrices, different),
    }
    return {name: np.where(empty, np.nan, value) for name, value in values.items()}


def _kappa(matrices: _Floats, weights: _Floats) -> _Floats:
    # Cohen 1968: 1 − Σ w·observed / Σ w·expected with disagreement weights w.
    support, predicted = matrices.sum(axis=-1), matrices.sum(axis=-2)
    observed = np.einsum("...ij,ij->...", matrices, weights) * matrices.sum(axis=(-2, -1))
    expected = np.einsum("...i,ij,...j->...", support, weights, predicted)
    return np.where(expected > 0, 1.0 - _ratio(observed, expected), np.nan)


def _mcc(matrices: _Floats) -> _Floats:
    # Gorodkin's multiclass R_K; 0 where truth or prediction is constant, as in scikit-learn.
    support, predicted = matrices.sum(axis=-1), matrices.sum(axis=-2)
    total = matrices.sum(axis=(-2, -1))
    hits = np.trace(matrices, axis1=-2, axis2=-1)
    covariance = hits * total - (support * predicted).sum(axis=-1)
    spread = (total**2 - (support**2).sum(axis=-1)) * (total**2 - (predicted**2).sum(axis=-1))
    return _ratio(covariance, np.sqrt(spread))


def _ratio(numerator: _Floats, denominator: _Floats) -> _Floats:
    return np.divide(
        numerator,
        denominator,
        out=np.zeros(np.broadcast(numerator, denominator).shape),
        where=denominator > 0,
    )
