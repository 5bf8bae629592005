"""Poly-1 loss."""

from torch import Tensor
from torch.nn.functional import cross_entropy

from wsi_ncmi.losses.base import LogitCriterion
from wsi_ncmi.losses.functional import true_class


class Poly1Loss(LogitCriterion):
    """L = −log p_y + ε₁ (1 − p_y): cross-entropy with another weight on its first polynomial term.

    Source: Leng et al., "PolyLoss: A Polynomial Expansion Perspective of Classification Loss Functions",
    ICLR 2022, arXiv 2204.12511, equation 6.

    Args:
        num_classes: Number of classes C.
        in_features: Width of the embedding, or None for logits.
        epsilon: ε₁, at least −1; 0 is cross-entropy.
    """

    def __init__(self, num_classes: int, in_features: int | None = None, *, epsilon: float = 1.0) -> None:
        super().__init__(num_classes, in_features)
        self.epsilon = epsilon

    def loss_from_logits(self, logits: Tensor, y: Tensor) -> Tensor:
        """Mean of −log p_y + ε₁ (1 − p_y) over the batch."""
        missing = 1 - true_class(logits.softmax(dim=-1), y)
        return cross_entropy(logits, y) + self.epsilon * missing.mean()
