"""Concentration, separation and their ratio as metrics of any trained model."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.metrics.classification import check_probabilities

__all__ = ["INFORMATION_METRICS", "information_metrics"]

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
