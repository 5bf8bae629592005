"""Square loss on the scores of the classes."""

from torch import Tensor

from wsi_ncmi.losses.base import LogitCriterion
from wsi_ncmi.losses.decision import CalibratedDecision


class SquareLoss(LogitCriterion):
    """L = 1/C · (k (f_y − M)² + Σ_{j≠y} f_j²) on the raw scores f, no softmax.

    Source: Hui & Belkin, "Evaluation of Neural Architectures Trained with Square Loss vs Cross-Entropy in
    Classification Tasks", ICLR 2021, arXiv 2006.07322, section 2 (k and M above 1 for many classes).

    The class is the argmax of the scores, as in the paper. As the scores are no log-probabilities,
    probabilities are the softmax of a·f + b with a scale and biases that :meth:`fit_decision` fits (a = 1,
    b = 0 before).

    Args:
        num_classes: Number of classes C.
        in_features: Width of the embedding, or None for scores.
        scale: k, weight of the true class's term.
        target: M, target score of the true class.
    """

    def __init__(
        self, num_classes: int, in_features: int | None = None, *, scale: float = 1.0, target: float = 1.0
    ) -> None:
        super().__init__(num_classes, in_features)
        self.scale = scale
        self.target = target
        self.decision = CalibratedDecision(num_classes, scale=1.0)
        self.fits_decision = True

    def loss_from_logits(self, logits: Tensor, y: Tensor) -> Tensor:
        """Mean of the squares over the batch."""
        column = y.unsqueeze(1)
        true = logits.gather(1, column)
        others = logits.scatter(1, column, 0.0).square().sum(dim=1, keepdim=True)
        return ((self.scale * (true - self.target).square() + others) / self.num_classes).mean()

    def log_proba(self, z: Tensor) -> Tensor:
        """Log-softmax of the calibrated scores, (B, C)."""
        log_p: Tensor = self.decision(-self.logits(z))
        return log_p

    def fit_decision(
        self, z: Tensor, y: Tensor, train_z: Tensor | None = None, train_y: Tensor | None = None
    ) -> None:
        """Fits scale and biases on training or validation inputs (N, E), never on test data."""
        z, y = self._checked(z, y)
        self.decision.fit(-self.logits(z), y)
