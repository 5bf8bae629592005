"""Cross-entropy, the loss that every other one is compared with."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy

from wsi_ncmi.losses.base import LogitCriterion

__all__ = ["CrossEntropy"]


class CrossEntropy(LogitCriterion):
    """Mean negative log-likelihood of the softmax, L = −log softmax(f)_y.

    Source: Good, "Rational Decisions", J. R. Stat. Soc. B 14 (1952), the logarithmic score.
    """

    def loss_from_logits(self, logits: Tensor, y: Tensor) -> Tensor:
        """Mean of −log p_y over the batch."""
        return cross_entropy(logits, y)
