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
# Of so many positives a matrix product costs less than sorting and running sums.
_FEW = 32


def binary_areas(
    positive: NDArray[np.bool_], scores: _Floats, weights: _Floats | None = None
) -> tuple[_Floats, _Floats]:
    """Area under the ROC curve, where ties count half, and average precision.

    The latter is the area under the precision–recall curve as Σ (R_k − R_{k−1})·P_k, without interpolation.

    Args:
        positive: (N,) which observations are positive.
        scores: (N,) higher means more positive.
        weights: (..., N) multiplicity of each observation, for example bootstrap counts; default ones.

    Returns:
        (...) areas and (...) precisions, NaN where positives (for the area also: negatives) are missing.
    """
    weights = np.ones(len(scores)) if weights is None else weights
    ours = np.flatnonzero(positive)
    ours = ours[np.argsort(scores[ours], kind="stable")]
    # Both curves step at the positives alone: what lies below each of them, and up to its ties, is enough.
    w = weights[..., ours]
    if len(ours) <= _FEW:
        below, upto = _weight_below(scores, scores[ours], weights)
    else:
        order = np.argsort(scores, kind="stable")
        everything = _running_sums(np.take(weights, order, axis=-1))
        below, upto = (
            everything[..., np.searchsorted(scores[order], scores[ours], side)] for side in ("left", "right")
        )
    positives = _running_sums(w)
    own_below, own_upto = (
        positives[..., np.searchsorted(scores[ours], scores[ours], side)] for side in ("left", "right")
    )
    lower, tied = below - own_below, (upto - below) - (own_upto - own_below)
    total, count = weights.sum(axis=-1), positives[..., -1]
    area = _defined_ratio((w * (lower + 0.5 * tied)).sum(axis=-1), count * (total - count))
    found, seen = count[..., None] - own_below, total[..., None] - below
    precision = np.divide(found, seen, out=np.zeros_like(found), where=seen > 0)
    return area, _defined_ratio((w * precision).sum(axis=-1), count)


def one_vs_rest_areas(
    y_true: NDArray[np.int64], probabilities: _Floats, weights: _Floats | None = None
) -> tuple[_Floats, _Floats]:
    """AUROC and average precision of each class against the rest, (..., C) each; NaN where undefined."""
    columns = [binary_areas(y_true == c, probabilities[:, c], weights) for c in range(probabilities.shape[1])]
    areas, precisions = zip(*columns, strict=True)
    return np.stack(areas, axis=-1), np.stack(precisions, axis=-1)


def _weight_below(scores: _Floats, at: _Floats, weights: _Floats) -> tuple[_Floats, _Floats]:
    """Weight of the slides below each of few scores, and up to it with its ties, (..., M) each."""
    below = np.concatenate([scores[:, None] < at, scores[:, None] <= at], axis=1)
    sums = weights @ below.astype(np.float64)
    return sums[..., : len(at)], sums[..., len(at) :]


def _running_sums(values: _Floats) -> _Floats:
    """(..., N + 1) sums of the first 0 … N values."""
    sums = np.zeros((*values.shape[:-1], values.shape[-1] + 1))
    np.cumsum(values, axis=-1, out=sums[..., 1:])
    return sums


def _defined_ratio(numerator: _Floats, denominator: _Floats) -> _Floats:
    ratio = np.full(np.shape(numerator), np.nan)
    np.divide(numerator, denominator, out=ratio, where=np.asarray(denominator) > 0)
    return ratio


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
    areas, precisions = one_vs_rest_areas(truth, p)
    values["auroc_macro_ovr"], values["auprc_macro"] = float(areas.mean()), float(precisions.mean())
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
    table["auroc"], table["auprc"] = one_vs_rest_areas(truth, p)
    return {
        name: {metric: float(values[i]) for metric, values in table.items()} for i, name in enumerate(classes)
    }
