"""Cross-entropy with smoothed labels."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy

from wsi_ncmi.losses.base import LogitCriterion

__all__ = ["LabelSmoothing"]


class LabelSmoothing(LogitCriterion):
    """Cross-entropy against (1 − ε)·onehot(y) + ε/C.

    Source: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016, arXiv
    1512.00567, section 7.

    Args:
        num_classes: Number of classes C.
        in_features: Width of the embedding, or None for logits.
        smoothing: ε in [0, 1).
    """

    def __init__(self, num_classes: int, in_features: int | None = None, *, smoothing: float = 0.1) -> None:
        super().__init__(num_classes, in_features)
        self.smoothing = smoothing

    def loss_from_logits(self, logits: Tensor, y: Tensor) -> Tensor:
        """Mean cross-entropy against the smoothed labels."""
        return cross_entropy(logits, y, label_smoothing=self.smoothing)
