"""Concentration, separation and their ratio as metrics of any trained model."""

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.metrics.confusion import check_probabilities

INFORMATION_METRICS = ("cmi", "gamma", "ncmi")
# Where the NLL clips too. A probability of exactly 0 (an underflow, or a rounded table) would otherwise make
# Γ infinite, and NCMI 0, which is its best value.
_SMALLEST = float(np.finfo(np.float64).eps)


def information_metrics(
    probabilities: NDArray[np.floating],
    y: NDArray[np.int64],
    form: Literal["pairwise", "centroid"] = "pairwise",
) -> dict[str, float]:
    """CMI, Γ and NCMI of predicted probabilities (arXiv 2601.02543 and 2309.09123).

    The centroids are the class means of these very predictions, so CMI is I(X; Ŷ | Y) of the sample.

    Args:
        probabilities: (N, C), rows sum to 1; clipped at float64's epsilon.
        y: (N,) class positions.
        form: Which Γ: ``pairwise`` (2309.09123) or ``centroid`` (2601.02543).

    Returns:
        ``cmi`` and ``gamma`` in nats and ``ncmi``, their ratio (small is good). With slides of one class only
        there is no separation: ``gamma`` and ``ncmi`` are NaN.

    Raises:
        InputError: Probabilities of the wrong shape, NaN, outside 0–1 or not summing to 1.
    """
    import torch

    from wsi_ncmi.losses import functional

    p = check_probabilities(probabilities, probabilities.shape[1])
    log_p = torch.from_numpy(np.log(np.clip(p, _SMALLEST, 1.0)))
    target = torch.from_numpy(np.asarray(y, dtype=np.int64))
    log_s, counts = functional.class_means(log_p, target, p.shape[1])
    concentration = float(functional.cmi(log_p, target, log_s))
    if int((counts > 0).sum()) < 2:
        return {"cmi": concentration, "gamma": math.nan, "ncmi": math.nan}
    separation = float(functional.separation(log_p, target, log_s, form))
    ratio = concentration / separation if separation > 0 else math.nan
    return {"cmi": concentration, "gamma": separation, "ncmi": ratio}


def information_terms(probabilities: NDArray[np.float64], y: NDArray[np.int64]) -> NDArray[np.float64]:
    """Terms of each slide whose sums over slides give CMI and the pairwise Γ.

    Args:
        probabilities: (N, C), rows sum to 1; clipped as in ``information_metrics``.
        y: (N,) class positions.

    Returns:
        (N, 2·C² + C + 1): p and log p in the columns of the slide's class, its one-hot class, and Σ p·log p.
    """
    p = np.clip(probabilities, _SMALLEST, 1.0)
    n, c = p.shape
    log_p, one_hot = np.log(p), np.eye(c)[y]
    by_class = [(one_hot[:, :, None] * values[:, None, :]).reshape(n, c * c) for values in (p, log_p)]
    return np.concatenate([*by_class, one_hot, (p * log_p).sum(axis=1, keepdims=True)], axis=1)


def information_of_sums(sums: NDArray[np.float64], num_classes: int) -> Mapping[str, NDArray[np.float64]]:
    """CMI, pairwise Γ and NCMI of any weighting of slides, as ``information_metrics`` has them.

    Source: arXiv 2309.09123, eq. for the pairwise Γ; the cross-entropy is linear in p and in log p, so class
    sums stand in for all pairs.

    Args:
        sums: (R, 2·C² + C + 1) weighted sums of ``information_terms``.
        num_classes: C.

    Returns:
        ``cmi``, ``gamma``, ``ncmi``, each (R,); NaN where undefined.
    """
    c = num_classes
    p, log_p = (sums[:, i * c * c : (i + 1) * c * c].reshape(-1, c, c) for i in (0, 1))
    counts, negentropy = sums[:, 2 * c * c : -1], sums[:, -1]
    n = counts.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        centroids = p / counts[:, :, None]
        toward = np.where(counts[:, :, None] > 0, p * np.log(np.maximum(centroids, _SMALLEST)), 0.0)
        concentration = (negentropy - toward.sum(axis=(1, 2))) / n
        others = log_p.sum(axis=1, keepdims=True) - log_p
        separation = -(p * others).sum(axis=(1, 2)) / n**2
        several = (counts > 0).sum(axis=1) >= 2
        ratio = np.where(separation > 0, concentration / separation, np.nan)
    return {
        "cmi": concentration,
        "gamma": np.where(several, separation, np.nan),
        "ncmi": np.where(several, ratio, np.nan),
    }
