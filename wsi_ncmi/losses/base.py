"""Interface of all losses: a criterion that owns its head and its decision."""

import contextlib
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from wsi_ncmi.core.arguments import as_tensor, described, whole_number, whole_numbers
from wsi_ncmi.core.errors import InputError

_INPUT = "(B, E) embeddings or (B, C) logits of floating-point numbers"


def full_precision(z: Tensor) -> contextlib.AbstractContextManager[object]:
    """No autocast where ``z`` is; entering a context costs more than asking whether one is open."""
    if torch.compiler.is_compiling() or torch.is_autocast_enabled(z.device.type):
        return torch.autocast(z.device.type, enabled=False)
    return contextlib.nullcontext()


def project(head: nn.Module, z: Tensor) -> Tensor:
    """Applies a head (or none) in its own precision; the result is float32 at least.

    Args:
        head: ``nn.Linear`` or several layers, or ``nn.Identity`` when ``z`` are the scores already.
        z: Inputs (B, E), any floating dtype.
    """
    if not isinstance(head, nn.Identity):
        weight = head.weight if isinstance(head, nn.Linear) else next(head.parameters())
        z = head(z.to(weight.dtype))
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
        uses_training: True when :meth:`fit_decision` can do more with the training inputs.

    Raises:
        InputError: Fewer than two classes, or a width below one.
    """

    def __init__(self, num_classes: int, in_features: int | None = None) -> None:
        super().__init__()
        self.num_classes = whole_number(num_classes, "The number of classes of a loss", 2)
        if in_features is not None:
            in_features = whole_number(in_features, "The width of a loss's embedding, in_features,", 1)
        self.in_features = in_features
        self.needs_epoch_pass = False
        self.fits_decision = False
        self.uses_training = False

    def forward(self, z: Any, y: Any) -> Tensor:
        """Computes the loss of a batch.

        Args:
            z: Embeddings (B, E), or logits (B, C) when ``in_features`` is None. Any floating dtype. One
                sample, (E,) with a label (), is a batch of one.
            y: Class indices (B,), any integer dtype, in [0, C).

        Returns:
            Scalar mean loss, float32 at least.

        Raises:
            InputError: They are no such tensors (or numpy arrays), or a label is no class (told on the CPU
                alone, as a GPU would be waited for).
        """
        return self.batch_loss(*self._checked(z, y))

    def batch_loss(self, z: Tensor, y: Tensor) -> Tensor:
        """The loss of checked embeddings or logits (B, …) and class indices (B,), int64."""
        raise NotImplementedError(f"{type(self).__name__} lacks the method batch_loss(z, y)")

    def _input(self, z: Any) -> Tensor:
        """Checked embeddings or logits of a batch (B, …), or of one sample (…)."""
        found: Tensor = z if isinstance(z, Tensor) else as_tensor(z, "The input of a loss", _INPUT)
        if found.ndim not in (1, 2) or not found.is_floating_point():
            raise InputError(f"The input of a loss must be {_INPUT}, got {described(found)}.")
        if self.in_features is not None and found.shape[-1] != self.in_features:
            raise InputError(
                f"The loss was made for embeddings of width {self.in_features}, got {described(found)}; make "
                f"it with in_features={found.shape[-1]}, or without for logits."
            )
        return found

    def _checked(self, z: Any, y: Any) -> tuple[Tensor, Tensor]:
        """A batch (B, …) and its labels (B,), int64."""
        z = self._input(z)
        if not isinstance(y, Tensor) or y.is_floating_point() or y.dtype == torch.bool:
            y = whole_numbers(y, "The labels of a loss", "(B,), one class index a sample")
        if y.ndim == 0:  # a single sample, with or without a dimension of its own
            z, y = z.unsqueeze(0) if z.ndim == 1 else z, y.unsqueeze(0)
        if z.ndim != 2:
            raise InputError(f"The input of a loss must be {_INPUT}, got {described(z)}.")
        if y.shape != z.shape[:1]:
            raise InputError(
                f"The labels of a loss must be ({len(z)},), one class index a sample, got {described(y)}."
            )
        if y.device.type == "cpu" and len(y) and not torch.compiler.is_compiling():
            low, high = torch.aminmax(y)
            if low < 0 or high >= self.num_classes:
                wrong = y[(y < 0) | (y >= self.num_classes)][0]
                raise InputError(
                    f"A label is {wrong}, and the classes are 0 to {self.num_classes - 1}; number the "
                    "classes from 0, or make the loss with more."
                )
        return z, y if y.dtype == torch.int64 else y.long()

    @abstractmethod
    def log_proba(self, z: Tensor) -> Tensor:
        """Log-probabilities (B, C) of the classes, float32 at least."""

    def extra_repr(self) -> str:
        """What the module is, for its ``repr``."""
        return f"num_classes={self.num_classes}, in_features={self.in_features}"

    def predict_proba(self, z: Tensor) -> Tensor:
        """Probabilities (B, C) of the classes; the decision is their argmax."""
        return self.log_proba(z).exp()

    def start_epoch(self, done: float) -> None:
        """Hook before an epoch's first step, and where a run goes on within it; here a no-op.

        Args:
            done: Share of the run's epochs that are done, in [0, 1).
        """

    @torch.no_grad()
    def end_epoch(self, z: Tensor, y: Tensor) -> None:
        """Hook after an epoch with all training inputs ``z`` (N, E) and labels ``y`` (N,); here a no-op."""

    def fit_decision(
        self, z: Tensor, y: Tensor, train_z: Tensor | None = None, train_y: Tensor | None = None
    ) -> None:
        """Fits the decision on validation inputs, never on test data; here a no-op.

        Args:
            z: Inputs (N, E) that the network has not learned from, computed in eval mode.
            y: Their labels (N,).
            train_z: The training inputs (M, E), for a criterion that ``uses_training``.
            train_y: Their labels (M,).
        """


def per_class(values: Any, num_classes: int, what: str, least: float, remedy: str = "") -> Tensor:
    """A number of each class, float64 (C,).

    Args:
        values: Tensor, array or sequence (C,).
        num_classes: C.
        what: What they are, to begin the sentence with.
        least: The smallest that will do.
        remedy: What to do, to end the sentence with.

    Raises:
        InputError: They are no such numbers.
    """
    try:
        # On the CPU also where torch's default device is another, as that of a model's claims.
        numbers: Tensor = torch.as_tensor(values, device="cpu").detach().clone().double()
    except (TypeError, ValueError, RuntimeError, OverflowError):
        numbers = torch.empty(0, device="cpu")
    if numbers.shape != (num_classes,) or not torch.isfinite(numbers).all() or (numbers < least).any():
        found = list(values) if isinstance(values, list | tuple) and len(values) <= 8 else described(values)
        raise InputError(
            f"{what} must be {num_classes} numbers of at least {least:g}, one a class, got {found}{remedy}."
        )
    return numbers


class LogitCriterion(Criterion):
    """Base of the losses that score C logits; adds a linear head when the inputs are embeddings."""

    def __init__(self, num_classes: int, in_features: int | None = None) -> None:
        super().__init__(num_classes, in_features)
        self.head: nn.Module = nn.Identity() if in_features is None else nn.Linear(in_features, num_classes)

    @abstractmethod
    def loss_from_logits(self, logits: Tensor, y: Tensor) -> Tensor:
        """The loss of logits (B, C), float32 at least, and labels (B,)."""

    def _input(self, z: Any) -> Tensor:
        found = super()._input(z)
        if self.in_features is None and found.shape[-1] != self.num_classes:
            raise InputError(
                f"The loss was made for logits of {self.num_classes} classes, got {described(found)}; for "
                f"embeddings make it with in_features={found.shape[-1]}."
            )
        return found

    def logits(self, z: Tensor) -> Tensor:
        """Logits (B, C) in float32 (float64 kept), also inside autocast."""
        z = self._input(z)
        with full_precision(z):
            return project(self.head, z)

    def batch_loss(self, z: Tensor, y: Tensor) -> Tensor:
        """The loss of the head's logits (see :class:`Criterion`)."""
        with full_precision(z):
            return self.loss_from_logits(project(self.head, z), y)

    def log_proba(self, z: Tensor) -> Tensor:
        """Log-softmax of the logits, (B, C)."""
        return self.logits(z).log_softmax(dim=-1)
