"""Perturbations of the instance features that keep a bag's label, for training alone."""

from __future__ import annotations

import torch
from torch import Tensor

from wsi_ncmi.mil.bags import BagBatch

__all__ = ["drop_features", "mix_instances"]


def drop_features(features: Tensor, batch: BagBatch, p: float) -> Tensor:
    """Zeroes whole features of a bag: the same columns in all its instances, the rest scaled by 1/(1 − p).

    Dropping elements one by one (``input_dropout``) leaves thousands of other instances to tell what is
    missing; a column dropped in all of them is really gone.

    Args:
        features: (ΣN, D).
        batch: The batch they belong to.
        p: Share of columns, in [0, 1).
    """
    kept = torch.rand(len(batch), features.shape[1], device=features.device) >= p
    return features * (kept / (1.0 - p)).to(features.dtype)[batch.bag_index]


def mix_instances(features: Tensor, batch: BagBatch, alpha: float) -> Tensor:
    """Mixes every instance with another one of its bag: λ x_i + (1 − λ) x_π(i), λ = max(b, 1 − b).

    b is drawn from Beta(α, α), one a bag, and π is a random permutation of the bag, so the bag keeps its mean
    and its label.

    Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018, arXiv 1710.09412, within a
    bag in place of between samples.

    Args:
        features: (ΣN, D).
        batch: The batch they belong to.
        alpha: Parameter of the Beta distribution, above 0; larger mixes more.
    """
    share = torch.distributions.Beta(alpha, alpha).sample((len(batch), 1)).to(features)
    share = torch.maximum(share, 1.0 - share)[batch.bag_index]
    # Sorting by bag and then by a random number shuffles each bag in itself.
    keys = batch.bag_index + torch.rand(len(features), dtype=torch.float64, device=features.device)
    return share * features + (1.0 - share) * features[keys.argsort()]
