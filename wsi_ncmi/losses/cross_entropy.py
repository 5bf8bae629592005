"""Cross-entropy, plain, weighted by inverse class frequency, and with smoothed labels."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.losses.base import LogitCriterion


class CrossEntropy(LogitCriterion):
    """Mean negative log-likelihood of the softmax, L = −log softmax(f)_y.

    Source: Good, "Rational Decisions", J. R. Stat. Soc. B 14 (1952), the logarithmic score.
    """

    def loss_from_logits(self, logits: Tensor, y: Tensor) -> Tensor:
        """Mean of −log p_y over the batch."""
        return cross_entropy(logits, y)


class WeightedCrossEntropy(LogitCriterion):
    """Cross-entropy with weights w_c = N / (C · N_c) ("balanced"), divided by the batch's weight sum.

    Source: King & Zeng, "Logistic Regression in Rare Events Data", Political Analysis 9 (2001).

    Args:
        num_classes: Number of classes C.
        in_features: Width of the embedding, or None for logits.
        class_counts: Training samples of each class (C,), each at least 1.

    Raises:
        InputError: Counts are missing, of the wrong number, or a class has no training sample.
    """

    weight: Tensor

    def __init__(
        self, num_classes: int, in_features: int | None = None, *, class_counts: Sequence[int]
    ) -> None:
        super().__init__(num_classes, in_features)
        if len(class_counts) != num_classes or min(class_counts) < 1:
            raise InputError(
                f"Class-weighted cross-entropy needs {num_classes} class counts of at least 1, "
                f"got {list(class_counts)}; give every class a training sample or use the loss 'ce'."
            )
        counts = torch.tensor(class_counts, dtype=torch.float64)
        self.register_buffer("weight", (counts.sum() / (num_classes * counts)).float())

    def loss_from_logits(self, logits: Tensor, y: Tensor) -> Tensor:
        """Weighted mean of −log p_y over the batch."""
        return cross_entropy(logits, y, weight=self.weight.to(logits.dtype))


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
