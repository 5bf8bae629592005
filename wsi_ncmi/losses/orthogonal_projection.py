"""Orthogonal projection loss (OPL)."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from wsi_ncmi.losses.base import LogitCriterion, project


def orthogonal_projection(features: Tensor, y: Tensor, gamma: float) -> Tensor:
    """L_OPL = (1 − s) + γ |d|: s and d are the mean cosines of pairs within and between classes.

    Args:
        features: Vectors (B, F) of any length.
        y: Class indices (B,).
        gamma: γ.

    Returns:
        Scalar; a term without a pair in the batch is 0.
    """
    unit = normalize(features, dim=1, eps=1e-6)
    cosine = unit @ unit.T
    same = y.unsqueeze(1) == y.unsqueeze(0)
    other = ~same
    same = same & ~torch.eye(len(y), dtype=torch.bool, device=y.device)
    pairs, other_pairs = same.sum(), other.sum()
    within = torch.where(pairs > 0, 1 - (cosine * same).sum() / pairs.clamp(min=1), 0.0)
    between = (cosine * other).sum() / other_pairs.clamp(min=1)
    return within + gamma * between.abs()


class OrthogonalProjectionLoss(LogitCriterion):
    """CE + λ · L_OPL on the embedding: classes pulled together and made orthogonal to each other.

    Source: Ranasinghe et al., "Orthogonal Projection Loss", ICCV 2021, arXiv 2103.14021, equations 3–6; γ
    balances the two terms as in its experiments. Pairs are those of the batch (of this process).

    Args:
        num_classes: Number of classes C.
        in_features: Width of the embedding; with None the term acts on the logits.
        weight: λ.
        gamma: γ.
    """

    def __init__(
        self, num_classes: int, in_features: int | None = None, *, weight: float = 1.0, gamma: float = 0.5
    ) -> None:
        super().__init__(num_classes, in_features)
        self.weight = weight
        self.gamma = gamma

    def batch_loss(self, z: Tensor, y: Tensor) -> Tensor:
        """The loss of a batch (see :class:`~wsi_ncmi.losses.base.Criterion`)."""
        with torch.autocast(z.device.type, enabled=False):
            logits = project(self.head, z)
            term = orthogonal_projection(z.to(logits.dtype), y, self.gamma)
            return self.loss_from_logits(logits, y) + self.weight * term

    def loss_from_logits(self, logits: Tensor, y: Tensor) -> Tensor:
        """The cross-entropy part."""
        return cross_entropy(logits, y)
