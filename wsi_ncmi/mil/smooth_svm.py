"""The smooth top-1 support-vector loss that CLAM trains its instances with."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["smooth_top1_svm"]

_HARD_FROM = math.log(1e3)


def smooth_top1_svm(scores: Tensor, targets: Tensor, *, margin: float = 1.0, tau: float = 1.0) -> Tensor:
    """Multi-class hinge with the maximum smoothed: τ log Σ_j exp((s_j + α [j ≠ y] − s_y) / τ).

    Where the two best scores are further apart than τ log 1000 the maximum itself is taken, as the authors'
    code does.

    Source: Berrada, Zisserman, Kumar, "Smooth Loss Functions for Deep Top-k Classification", ICLR 2018,
    arXiv 1802.07595, for k = 1.

    Args:
        scores: (M, C), C at least 2.
        targets: (M,), int64.
        margin: α.
        tau: Temperature τ.

    Returns:
        Loss of each row, (M,).
    """
    true = scores.gather(1, targets.unsqueeze(1))
    others = torch.ones_like(scores).scatter_(1, targets.unsqueeze(1), 0.0)
    violation = scores + margin * others - true
    best = scores.detach().topk(2, dim=1).values
    apart = best[:, 0] - best[:, 1] >= tau * _HARD_FROM
    smooth = tau * (violation / tau).logsumexp(dim=1)
    return torch.where(apart, violation.amax(dim=1), smooth)
