"""Supervised contrastive loss beside cross-entropy."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from wsi_ncmi.losses.base import LogitCriterion, project


def supervised_contrastive(features: Tensor, y: Tensor, temperature: float) -> Tensor:
    """L = mean over anchors i of −1/|P(i)| Σ_{p∈P(i)} log(exp(f_i·f_p/τ) / Σ_{a≠i} exp(f_i·f_a/τ)).

    Args:
        features: Unit vectors (B, F).
        y: Class indices (B,).
        temperature: τ.

    Returns:
        Scalar; 0 when no sample has another of its class beside it, as at batch size 1.
    """
    itself = torch.eye(len(y), dtype=torch.bool, device=y.device)
    positive = (y.unsqueeze(1) == y.unsqueeze(0)) & ~itself
    similarity = (features @ features.T / temperature).masked_fill(itself, float("-inf"))
    anchors = positive.any(dim=1)
    if not anchors.any():
        return features.sum() * 0.0
    log_share = similarity[anchors].log_softmax(dim=1)
    positive = positive[anchors]
    return -(log_share.masked_fill(~positive, 0.0).sum(dim=1) / positive.sum(dim=1)).mean()


class SupervisedContrastive(LogitCriterion):
    """CE + λ · supervised contrastive loss, the linear head and the projection trained together.

    Source: Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020, arXiv 2004.11362, L_out
    (equation 2), projection head of one hidden layer (section 3.1). The paper trains in two stages, the
    classifier on a frozen encoder afterwards; a bag model with one optimiser takes the joint form (Wang et
    al., "Contrastive Learning based Hybrid Networks for Long-Tailed Image Classification", CVPR 2021, arXiv
    2103.14267, with fixed weights). A slide has no second augmented view here: positives are the other
    slides of its class in the batch (of this process).

    Args:
        num_classes: Number of classes C.
        in_features: Width of the embedding; with None the normalised logits are contrasted.
        temperature: τ.
        weight: λ.
        projection: Width of the contrasted vectors.
    """

    def __init__(
        self,
        num_classes: int,
        in_features: int | None = None,
        *,
        temperature: float = 0.1,
        weight: float = 1.0,
        projection: int = 64,
    ) -> None:
        super().__init__(num_classes, in_features)
        self.temperature = temperature
        self.weight = weight
        self.projection: nn.Module = nn.Identity()
        if in_features is not None:
            self.projection = nn.Sequential(
                nn.Linear(in_features, in_features), nn.ReLU(), nn.Linear(in_features, projection)
            )

    def batch_loss(self, z: Tensor, y: Tensor) -> Tensor:
        """The loss of a batch (see :class:`~wsi_ncmi.losses.base.Criterion`)."""
        with torch.autocast(z.device.type, enabled=False):
            logits = project(self.head, z)
            contrasted = normalize(project(self.projection, z), dim=1, eps=1e-6)
            contrast = supervised_contrastive(contrasted, y, self.temperature)
            return self.loss_from_logits(logits, y) + self.weight * contrast

    def loss_from_logits(self, logits: Tensor, y: Tensor) -> Tensor:
        """The cross-entropy part."""
        return cross_entropy(logits, y)
