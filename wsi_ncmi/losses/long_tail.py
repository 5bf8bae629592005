"""The losses for long tails: logit adjustment, LDAM with deferred weights, class-balanced focal loss."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, normalize

from wsi_ncmi.losses.base import LogitCriterion, per_class
from wsi_ncmi.losses.cross_entropy import FocalLoss

_REMEDY = "; give every class a training sample or use the loss 'ce'"


def effective_number_weights(counts: Tensor, beta: float) -> Tensor:
    """Weights w_c ∝ (1 − β)/(1 − β^N_c) that sum to C.

    Source: Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019, arXiv
    1901.05555, equation 2 and section 4.

    Args:
        counts: Training samples N_c of each class (C,), each at least 1.
        beta: β in [0, 1); 0 weights all classes alike.

    Returns:
        Weights (C,) of the dtype of ``counts``.
    """
    weights = (1 - beta) / (1 - beta**counts)
    return weights * len(counts) / weights.sum()


class LogitAdjustedLoss(LogitCriterion):
    """Cross-entropy of the logits plus τ times the log prior: L = −log softmax(f + τ log π)_y.

    Predictions use the bare logits, and so aim at the balanced error. With τ = 1 it is the balanced softmax
    (Ren et al. 2020, arXiv 2007.10740).

    Source: Menon et al., "Long-tail learning via logit adjustment", ICLR 2021, arXiv 2007.07314, equation 10.

    Args:
        num_classes: Number of classes C.
        in_features: Width of the embedding, or None for logits.
        class_counts: Training samples of each class (C,), each at least 1.
        tau: τ; 0 is cross-entropy.

    Raises:
        InputError: Counts are of the wrong number, or a class has no training sample.
    """

    adjustment: Tensor

    def __init__(
        self,
        num_classes: int,
        in_features: int | None = None,
        *,
        class_counts: Sequence[int],
        tau: float = 1.0,
    ) -> None:
        super().__init__(num_classes, in_features)
        counts = per_class(class_counts, num_classes, "The class counts of logit adjustment", 1, _REMEDY)
        self.register_buffer("adjustment", (tau * (counts / counts.sum()).log()).float())

    def loss_from_logits(self, logits: Tensor, y: Tensor) -> Tensor:
        """Mean of −log softmax(f + τ log π)_y over the batch."""
        return cross_entropy(logits + self.adjustment.to(logits.dtype), y)


class _CosineHead(nn.Module):
    """Scores s·cos(w_c, z)."""

    def __init__(self, in_features: int, num_classes: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(normalize(torch.randn(num_classes, in_features), dim=1))
        self.scale = scale

    def forward(self, z: Tensor) -> Tensor:
        # A larger eps than the usual 1e-12, whose gradient at an embedding of zeros would be 1e12.
        return self.scale * linear(normalize(z, dim=-1, eps=1e-6), normalize(self.weight, dim=-1, eps=1e-6))


class LDAMLoss(LogitCriterion):
    """Label-distribution-aware margins, and class weights in the last part of the training (LDAM-DRW).

    L = −w_y log softmax(s·(cos − Δ_y 1{· = y}))_y, Δ_c ∝ N_c^(−1/4), ``margin`` for the rarest class. The
    weights w are 1 for the share ``deferral`` of the epochs, then :func:`effective_number_weights`. The head
    scores s times the cosine of embedding and class vector; logits that are given must be such.

    Source: Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss", NeurIPS
    2019, arXiv 1906.07413, equations 12 and 13 and algorithm 1; the defaults are those of its experiments.

    Args:
        num_classes: Number of classes C.
        in_features: Width of the embedding, or None for logits.
        class_counts: Training samples of each class (C,), each at least 1.
        margin: Largest margin, in cosines.
        scale: s.
        deferral: Share of the epochs before the weights set in, in [0, 1]; 1 never weights.
        beta: β of the weights.

    Raises:
        InputError: Counts are of the wrong number, or a class has no training sample.
    """

    margins: Tensor
    weight: Tensor

    def __init__(
        self,
        num_classes: int,
        in_features: int | None = None,
        *,
        class_counts: Sequence[int],
        margin: float = 0.5,
        scale: float = 30.0,
        deferral: float = 0.8,
        beta: float = 0.9999,
    ) -> None:
        super().__init__(num_classes, in_features)
        if in_features is not None:
            self.head = _CosineHead(in_features, num_classes, scale)
        counts = per_class(class_counts, num_classes, "The class counts of LDAM", 1, _REMEDY)
        margins = counts**-0.25
        self.register_buffer("margins", (scale * margin * margins / margins.max()).float())
        self.register_buffer("weight", effective_number_weights(counts, beta).float())
        self.deferral = deferral
        self._weighted = deferral == 0

    def start_epoch(self, done: float) -> None:
        """Lets the weights set in once the share ``deferral`` of the epochs is done."""
        self._weighted = done >= self.deferral

    def loss_from_logits(self, logits: Tensor, y: Tensor) -> Tensor:
        """Weighted mean over the batch, the margin subtracted from the true class's score."""
        margins = self.margins.to(logits.dtype)[y]
        shifted = logits.scatter_add(1, y[:, None], -margins[:, None])
        return cross_entropy(shifted, y, weight=self.weight.to(logits.dtype) if self._weighted else None)


class ClassBalancedFocalLoss(FocalLoss):
    """Focal loss of the softmax, weighted by the effective number of samples: L = −w_y (1 − p_y)^γ log p_y.

    Source: Cui et al., CVPR 2019, arXiv 1901.05555, section 4.3, with the softmax's focal loss in place of
    the sigmoid's.

    Args:
        num_classes: Number of classes C.
        in_features: Width of the embedding, or None for logits.
        class_counts: Training samples of each class (C,), each at least 1.
        gamma: Focusing exponent γ.
        beta: β of :func:`effective_number_weights`.

    Raises:
        InputError: Counts are of the wrong number, or a class has no training sample.
    """

    weight: Tensor

    def __init__(
        self,
        num_classes: int,
        in_features: int | None = None,
        *,
        class_counts: Sequence[int],
        gamma: float = 1.0,
        beta: float = 0.999,
    ) -> None:
        super().__init__(num_classes, in_features, gamma=gamma)
        counts = per_class(
            class_counts, num_classes, "The class counts of the class-balanced focal loss", 1, _REMEDY
        )
        self.register_buffer("weight", effective_number_weights(counts, beta).float())

    def loss_from_logits(self, logits: Tensor, y: Tensor) -> Tensor:
        """Mean of −w_y (1 − p_y)^γ log p_y over the batch."""
        return (self.weight.to(logits.dtype)[y] * self.losses_from_logits(logits, y)).mean()
