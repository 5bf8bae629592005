"""Interface of all losses: a criterion that owns its head and its decision."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from wsi_ncmi.core.errors import InputError


def project(head: nn.Module, z: Tensor) -> Tensor:
    """Applies a linear head (or none) in its own precision; the result is float32 at least.

    Args:
        head: ``nn.Linear``, or ``nn.Identity`` when ``z`` are the scores already.
        z: Inputs (B, E), any floating dtype.
    """
    if isinstance(head, nn.Linear):
        z = head(z.to(head.weight.dtype))
    return z if z.dtype == torch.float64 else z.float()


class Criterion(nn.Module, ABC):
    """A loss with everything that belongs to it: head, training objective, decision and their state.

    A criterion replaces ``nn.CrossEntropyLoss`` *and* the classifier in front of it. With ``in_features``
    it takes embeddings and owns the head (its parameters must be given to the optimiser together with the
    model's); without, it takes logits.

    Args:
        num_classes: Number of classes C, at least 2.
        in_features: Width E of the embedding, or None when the inputs are logits (B, C).

    Attributes:
        needs_epoch_pass: True when :meth:`end_epoch` does something, so that a loop without this need
            can skip the extra pass over the training set.
        fits_decision: True when :meth:`fit_decision` does something.

    Raises:
        InputError: Fewer than two classes, or a width below one.
    """

    def __init__(self, num_classes: int, in_features: int | None = None) -> None:
        super().__init__()
        if num_classes < 2:
            raise InputError(
                f"A loss needs at least 2 classes, got {num_classes}; check the label column of the cohort."
            )
        if in_features is not None and in_features < 1:
            raise InputError(f"in_features must be at least 1 or None, got {in_features}.")
        self.num_classes = num_classes
        self.in_features = in_features
        self.needs_epoch_pass = False
        self.fits_decision = False

    @abstractmethod
    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Computes the loss of a batch.

        Args:
            z: Embeddings (B, E), or logits (B, C) when ``in_features`` is None. Any floating dtype.
            y: Class indices (B,), int64, in [0, C).

        Returns:
            Scalar mean loss, float32 at least.
        """

    @abstractmethod
    def log_proba(self, z: Tensor) -> Tensor:
        """Log-probabilities (B, C) of the classes, float32 at least."""

    def predict_proba(self, z: Tensor) -> Tensor:
        """Probabilities (B, C) of the classes; the decision is their argmax."""
        return self.log_proba(z).exp()

    @torch.no_grad()
    def end_epoch(self, z: Tensor, y: Tensor) -> None:
        """Hook after an epoch with all training inputs ``z`` (N, E) and labels ``y`` (N,); here a no-op."""

    def fit_decision(self, z: Tensor, y: Tensor) -> None:
        """Fits the decision on training or validation inputs, never on test data; here a no-op."""


class LogitCriterion(Criterion):
    """Base of the losses that score C logits; adds a linear head when the inputs are embeddings."""

    def __init__(self, num_classes: int, in_features: int | None = None) -> None:
        super().__init__(num_classes, in_features)
        self.head = nn.Identity() if in_features is None else nn.Linear(in_features, num_classes)

    @abstractmethod
    def loss_from_logits(self, logits: Tensor, y: Tensor) -> Tensor:
        """The loss of logits (B, C), float32 at least, and labels (B,)."""

    def logits(self, z: Tensor) -> Tensor:
        """Logits (B, C) in float32 (float64 kept), also inside autocast."""
        with torch.autocast(z.device.type, enabled=False):
            return project(self.head, z)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Computes the loss of a batch (see :class:`Criterion`)."""
        with torch.autocast(z.device.type, enabled=False):
            return self.loss_from_logits(project(self.head, z), y)

    def log_proba(self, z: Tensor) -> Tensor:
        """Log-softmax of the logits, (B, C)."""
        return self.logits(z).log_softmax(dim=-1)
