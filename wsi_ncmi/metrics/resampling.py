"""Bootstrap over patients, as matrix products.

Slides of one patient aren't independent, so patients are drawn, not slides. Every metric that follows from
sums over slides (confusion matrix, Brier, NLL, calibration gaps) needs only one vector of sums per patient: a
resample is a vector of patient multiplicities, and thousands of resamples are one matrix product.
"""

from collections.abc import Iterator
from statistics import NormalDist  # SciPy's take a fifth of a second to load

import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.float64]
_CHUNK_CELLS = 2_000_000
_NORMAL = NormalDist()


def draw_multiplicities(patients: int, resamples: int, seed: int, width: int = 1) -> Iterator[_Floats]:
    """Draws patients with replacement.

    Args:
        patients: How many there are.
        resamples: How many resamples in all.
        seed: The same seed gives the same draws, so that two models can be compared on the same patients.
        width: Columns that the caller will hold per resample beside the patients; bounds memory.

    Yields:
        float64 (r, patients) how often each patient was drawn; rows sum to ``patients``; in chunks,
        the sizes of which don't change the draws.
    """
    rng = np.random.default_rng(seed)
    rows = max(1, _CHUNK_CELLS // max(patients, width, 1))
    for start in range(0, resamples, rows):
        r = min(rows, resamples - start)
        drawn = rng.integers(0, patients, size=(r, patients))
        drawn += np.arange(r)[:, None] * patients
        counts = np.bincount(drawn.ravel(), minlength=r * patients)
        yield counts.reshape(r, patients).astype(np.float64)


def sum_by_patient(values: _Floats, patient: NDArray[np.int64], patients: int) -> _Floats:
    """Sums rows of (N, M) slide values into (patients, M)."""
    sums = np.zeros((patients, values.shape[1]))
    np.add.at(sums, patient, values)
    return sums


def percentile_interval(values: _Floats, confidence: float = 0.95) -> tuple[float, float, float]:
    """Percentile interval of resampled values.

    Returns:
        ``(low, high, defined)``: the bounds over the resamples in which the metric is defined, and their
        share. The bounds are NaN where that is less than half.
    """
    finite = values[np.isfinite(values)]
    defined = len(finite) / len(values) if len(values) else 0.0
    if defined < 0.5:
        return float("nan"), float("nan"), defined
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(finite, [tail, 1.0 - tail])
    return float(low), float(high), defined


def exact_interval(share: float, units: int, confidence: float = 0.95) -> tuple[float, float]:
    """Clopper and Pearson's interval of a share of 0 or 1, where resampling gives the same value each time.

    Args:
        share: 0 or 1: none or all of the units.
        units: How many independent units (patients) there are, at least 1.
        confidence: Share of the truth that it is to cover.
    """
    reach = ((1.0 - confidence) / 2.0) ** (1.0 / units)
    return (reach, 1.0) if share else (0.0, 1.0 - reach)


def leave_one_out(patients: int) -> _Floats:
    """Weights of the jackknife, (patients, patients): row i is everybody but patient i."""
    return np.ones((patients, patients)) - np.eye(patients)


def bca_interval(
    values: _Floats, estimate: float, jackknife: _Floats, confidence: float = 0.95
) -> tuple[float, float]:
    """Bias-corrected and accelerated interval (Efron 1987, JASA 82; Efron & Tibshirani 1993, eq. 14.9–14.15).

    Percentiles of the resamples, moved by the bias of their median and by how the standard error changes with
    the value; resamples equal to the estimate count half for the bias, as metrics of few slides have many.

    Args:
        values: (R,) resampled values.
        estimate: The value of the sample itself.
        jackknife: (P,) values without one patient each.
        confidence: Share of the truth that it is to cover.

    Returns:
        ``(low, high)``; NaN where the metric is undefined in most resamples, the same in all, or all of them
        lie on one side.
    """
    finite, left_out = values[np.isfinite(values)], jackknife[np.isfinite(jackknife)]
    if len(finite) < 0.5 * len(values) or not len(finite) or not len(left_out) or np.ptp(finite) == 0:
        return float("nan"), float("nan")
    below = (np.sum(finite < estimate) + 0.5 * np.sum(finite == estimate)) / len(finite)
    if not 0.0 < below < 1.0:
        return float("nan"), float("nan")
    influence = left_out.mean() - left_out
    spread = float((influence**2).sum()) ** 1.5
    acceleration = float((influence**3).sum()) / (6.0 * spread) if spread > 0 else 0.0
    bias = _NORMAL.inv_cdf(below)
    shifted = [bias + _NORMAL.inv_cdf((1.0 + side * confidence) / 2.0) for side in (-1, 1)]
    levels = [_NORMAL.cdf(bias + z / (1.0 - acceleration * z)) for z in shifted]
    low, high = np.quantile(finite, levels)
    return float(low), float(high)
