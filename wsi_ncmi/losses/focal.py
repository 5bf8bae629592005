"""Focal loss."""

from torch import Tensor

from wsi_ncmi.losses.base import LogitCriterion
from wsi_ncmi.losses.functional import true_class


class FocalLoss(LogitCriterion):
    """L = −(1 − p_y)^γ log p_y: easy samples count less.

    Source: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, arXiv 1708.02002, equation 4, in
    the multi-class form without the class weight α.

    Args:
        num_classes: Number of classes C.
        in_features: Width of the embedding, or None for logits.
        gamma: Focusing exponent γ; 0 is cross-entropy.
    """

    def __init__(self, num_classes: int, in_features: int | None = None, *, gamma: float = 2.0) -> None:
        super().__init__(num_classes, in_features)
        self.gamma = gamma

    def loss_from_logits(self, logits: Tensor, y: Tensor) -> Tensor:
        """Mean of −(1 − p_y)^γ log p_y over the batch."""
        log_p = true_class(logits.log_softmax(dim=-1), y)
        # 1 − p from expm1 keeps its digits where p is near 1; its zero has no power-law gradient below γ = 1.
        rest = (-log_p.expm1()).clamp(min=0.0)
        if self.gamma < 1:
            rest = rest.clamp(min=1e-12)
        return -(rest.pow(self.gamma) * log_p).mean()
