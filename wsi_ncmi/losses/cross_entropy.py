"""Cross-entropy and the losses that modify it: label smoothing, class weights, focal, Poly-1."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import cross_entropy

from wsi_ncmi.losses.base import LogitCriterion, per_class
from wsi_ncmi.losses.functional import true_class


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
        what = "The class counts of class-weighted cross-entropy"
        remedy = "; give every class a training sample or use the loss 'ce'"
        counts = per_class(class_counts, num_classes, what, 1, remedy)
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
        return self.losses_from_logits(logits, y).mean()

    def losses_from_logits(self, logits: Tensor, y: Tensor) -> Tensor:
        """−(1 − p_y)^γ log p_y of each sample (B,)."""
        log_p = true_class(logits.log_softmax(dim=-1), y)
        # 1 − p from expm1 keeps its digits where p is near 1; its zero has no power-law gradient below γ = 1.
        rest = (-log_p.expm1()).clamp(min=0.0)
        if self.gamma < 1:
            rest = rest.clamp(min=1e-12)
        return -(rest.pow(self.gamma) * log_p)


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
