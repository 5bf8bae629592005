"""Concentration, separation and their ratio as metrics of any trained model."""

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.metrics.confusion import check_probabilities
from wsi_ncmi.metrics.resampling import sum_by_patient

_Floats = NDArray[np.float64]

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


class InformationSums:
    """CMI, pairwise Γ and NCMI of any weighting of patients, as ``information_metrics`` has them.

    Source: arXiv 2309.09123, eq. for the pairwise Γ; the cross-entropy is linear in p and in log p, so class
    sums stand in for all pairs. Those of a class need its own patients alone.

    Args:
        probabilities: (N, C), rows sum to 1; clipped as in ``information_metrics``.
        y: (N,) class positions.
        patient: (N,) position of each slide's patient.
        patients: How many there are.
    """

    def __init__(
        self, probabilities: _Floats, y: NDArray[np.int64], patient: NDArray[np.int64], patients: int
    ) -> None:
        p = np.clip(probabilities, _SMALLEST, 1.0)
        log_p = np.log(p)
        totals = np.concatenate([log_p, (p * log_p).sum(axis=1, keepdims=True)], axis=1)
        self._totals = sum_by_patient(totals, patient, patients)
        # Of each class: its patients, their sums of p and their slides, and the products of the sums of p of
        # one and of log p of the other.
        self._of_class = []
        for c in np.unique(y):
            members, place = np.unique(patient[y == c], return_inverse=True)
            own = [sum_by_patient(values[y == c], place, len(members)) for values in (p, log_p)]
            count = np.bincount(place).astype(np.float64)
            self._of_class.append((members, own[0], count, own[0] @ own[1].T))

    def values(self, weights: _Floats) -> Mapping[str, _Floats]:
        """``cmi``, ``gamma``, ``ncmi``, each (R,), for (R, P) weights; NaN where undefined."""
        sums = weights @ self._totals
        log_all, negentropy = sums[:, :-1], sums[:, -1]
        n, toward, apart, classes = (np.zeros(len(weights)) for _ in range(4))
        all_p = np.zeros_like(log_all)
        logarithms = np.empty_like(log_all)
        with np.errstate(divide="ignore", invalid="ignore"):
            for members, p_of, slides_of, products in self._of_class:
                own = np.take(weights, members, axis=1)
                p, count = own @ p_of, own @ slides_of
                np.divide(p, np.where(count > 0, count, 1.0)[:, None], out=logarithms)
                np.log(np.maximum(logarithms, _SMALLEST, out=logarithms), out=logarithms)
                toward += np.einsum("rj,rj->r", p, logarithms)
                apart -= np.einsum("rj,rj->r", own @ products, own)
                all_p += p
                n += count
                classes += count > 0
            apart += np.einsum("rj,rj->r", all_p, log_all)
            concentration = (negentropy - toward) / n
            separation = -apart / n**2
            ratio = np.where(separation > 0, concentration / separation, np.nan)
        return {
            "cmi": concentration,
            "gamma": np.where(classes >= 2, separation, np.nan),
            "ncmi": np.where(classes >= 2, ratio, np.nan),
        }
