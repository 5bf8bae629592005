"""AUROC and average precision with observation weights, for one resample or many at once."""

import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.float64]


def auroc(positive: NDArray[np.bool_], scores: _Floats, weights: _Floats | None = None) -> _Floats:
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


def average_precision(
    positive: NDArray[np.bool_], scores: _Floats, weights: _Floats | None = None
) -> _Floats:
    """Area under the precision–recall curve as Σ (R_k − R_{k−1})·P_k, without interpolation.

    Args and shapes as in ``auroc``.

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
    columns = [auroc(y_true == c, probabilities[:, c], weights) for c in range(probabilities.shape[1])]
    return np.stack(columns, axis=-1)


def one_vs_rest_average_precision(
    y_true: NDArray[np.int64], probabilities: _Floats, weights: _Floats | None = None
) -> _Floats:
    """Average precision of each class against the rest, (..., C); undefined classes are NaN."""
    columns = [
        average_precision(y_true == c, probabilities[:, c], weights) for c in range(probabilities.shape[1])
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
