"""Classification metrics of one set of predictions, each average named.

The headline is macro-F1 over all classes of the task (scikit-learn: ``average="macro", labels=classes,
zero_division=0``), never micro-F1, which is the accuracy.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.metrics.calibration import brier_terms, expected_calibration_error, nll_terms
from wsi_ncmi.metrics.confusion import (
    CONFUSION_METRICS,
    check_probabilities,
    class_positions,
    class_ranks,
    confusion_matrix,
    confusion_metrics,
    per_class_metrics,
)

_Floats = NDArray[np.float64]


def binary_auroc(positive: NDArray[np.bool_], scores: _Floats, weights: _Floats | None = None) -> _Floats:
    """Area under the ROC curve; ties count half.

    Args:
        positive: (N,) which observations are positive.
        scores: (N,) higher means more positive.
        weights: (..., N) multiplicity of each observation, for example bootstrap counts; default ones.

    Returns:
        (...) areas, NaN where positives or negatives are missing.
    """
    weights = np.ones(len(scores)) if weights is None else weights
    order = np.argsort(scores, kind="stable")
    sorted_weights = weights[..., order]
    is_positive = positive[order]
    p, n = sorted_weights * is_positive, sorted_weights * ~is_positive
    # Tied observations form one group: positives of a group beat the negatives below and half of their own.
    starts = _group_starts(scores[order])
    p, n = _group_sums(p, starts), _group_sums(n, starts)
    below = np.cumsum(n, axis=-1) - n
    wins = (p * (below + 0.5 * n)).sum(axis=-1)
    pairs = p.sum(axis=-1) * n.sum(axis=-1)
    return _defined_ratio(wins, pairs)


def binary_average_precision(
    positive: NDArray[np.bool_], scores: _Floats, weights: _Floats | None = None
) -> _Floats:
    """Area under the precision–recall curve as Σ (R_k − R_{k−1})·P_k, without interpolation.

    Args and shapes as in ``binary_auroc``.

    Returns:
        (...) areas, NaN where positives are missing.
    """
    weights = np.ones(len(scores)) if weights is None else weights
    order = np.argsort(-scores, kind="stable")
    sorted_weights = weights[..., order]
    starts = _group_starts(scores[order])
    p = _group_sums(sorted_weights * positive[order], starts)
    everything = _group_sums(sorted_weights, starts)
    found, seen = np.cumsum(p, axis=-1), np.cumsum(everything, axis=-1)
    precision = np.divide(found, seen, out=np.zeros_like(found), where=seen > 0)
    total = p.sum(axis=-1)
    area = (p * precision).sum(axis=-1)
    return _defined_ratio(area, total)


def one_vs_rest_auroc(
    y_true: NDArray[np.int64], probabilities: _Floats, weights: _Floats | None = None
) -> _Floats:
    """AUROC of each class against the rest, (..., C); undefined classes are NaN."""
    columns = [binary_auroc(y_true == c, probabilities[:, c], weights) for c in range(probabilities.shape[1])]
    return np.stack(columns, axis=-1)


def one_vs_rest_average_precision(
    y_true: NDArray[np.int64], probabilities: _Floats, weights: _Floats | None = None
) -> _Floats:
    """Average precision of each class against the rest, (..., C); undefined classes are NaN."""
    columns = [
        binary_average_precision(y_true == c, probabilities[:, c], weights)
        for c in range(probabilities.shape[1])
    ]
    return np.stack(columns, axis=-1)


def _defined_ratio(numerator: _Floats, denominator: _Floats) -> _Floats:
    ratio = np.full(np.shape(numerator), np.nan)
    np.divide(numerator, denominator, out=ratio, where=np.asarray(denominator) > 0)
    return ratio


def _group_starts(sorted_scores: _Floats) -> NDArray[np.int64]:
    if len(sorted_scores) == 0:
        return np.zeros(0, dtype=np.int64)
    changes = np.flatnonzero(np.diff(sorted_scores) != 0) + 1
    return np.concatenate([[0], changes]).astype(np.int64)


def _group_sums(values: _Floats, starts: NDArray[np.int64]) -> _Floats:
    if len(starts) in (0, values.shape[-1]):
        return values
    return np.add.reduceat(values, starts, axis=-1)


METRICS = (*CONFUSION_METRICS, "auroc_macro_ovr", "auprc_macro", "brier", "nll", "ece")


def classification_metrics(
    y_true: Sequence[str] | NDArray[np.str_],
    probabilities: NDArray[np.floating],
    predictions: Sequence[str] | NDArray[np.str_],
    classes: Sequence[str],
    order: Sequence[str] = (),
) -> dict[str, float]:
    """Computes every metric of ``METRICS``.

    Args:
        y_true: (N,) class names.
        probabilities: (N, C) in the order of ``classes``; rows sum to 1 within 0.001. They are
            taken as they are: renormalising would break ties, and with them AUROC, by rounding.
        predictions: (N,) predicted class names; need not be the argmax (a calibrated decision may differ).
        classes: All classes of the task, in the order of ``probabilities``.
        order: The classes from the least to the most, for the weighted kappas; CAMELYON-17's are known.

    Returns:
        Name → value. NaN where undefined: AUROC and AUPRC average over the classes with slides in and out of
        the class (every class of the task must qualify, else the macro average is NaN), kappa when truth and
        prediction are one and the same class, weighted kappa where the classes have no order.

    Raises:
        InputError: A class name outside ``classes``, a probability that is NaN, negative or doesn't sum to 1,
            or no slides.
    """
    truth, predicted = class_positions(y_true, classes), class_positions(predictions, classes)
    p = check_probabilities(probabilities, len(classes))
    if not len(truth) == len(predicted) == len(p):
        raise InputError(
            f"{len(truth)} labels, {len(predicted)} predictions and {len(p)} probability rows don't match."
        )
    matrix = confusion_matrix(truth, predicted, len(classes))
    values = {
        name: float(value) for name, value in confusion_metrics(matrix, class_ranks(classes, order)).items()
    }
    values["auroc_macro_ovr"] = float(one_vs_rest_auroc(truth, p).mean())
    values["auprc_macro"] = float(one_vs_rest_average_precision(truth, p).mean())
    values["brier"] = float(brier_terms(truth, p).mean())
    values["nll"] = float(nll_terms(truth, p).mean())
    values["ece"] = expected_calibration_error(truth, p)
    return values


def class_table(
    y_true: Sequence[str] | NDArray[np.str_],
    probabilities: NDArray[np.floating],
    predictions: Sequence[str] | NDArray[np.str_],
    classes: Sequence[str],
) -> dict[str, dict[str, float]]:
    """Precision, recall, F1, support, AUROC and AUPRC: class → name → value (NaN = undefined)."""
    truth, predicted = class_positions(y_true, classes), class_positions(predictions, classes)
    p = check_probabilities(probabilities, len(classes))
    table = per_class_metrics(confusion_matrix(truth, predicted, len(classes)))
    table["auroc"] = one_vs_rest_auroc(truth, p)
    table["auprc"] = one_vs_rest_average_precision(truth, p)
    return {
        name: {metric: float(values[i]) for metric, values in table.items()} for i, name in enumerate(classes)
    }
