"""Optimiser of a run: learning rate, parameter groups, clipping, precision and the average of the weights."""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wsi_ncmi.training.config import TrainingConfig


def learning_rate_at(step: int, total_steps: int, *, peak: float, warmup: float) -> float:
    """Linear warm-up to the peak, then half a cosine towards zero (Loshchilov & Hutter, arXiv 1608.03983).

    Args:
        step: Zero-based optimiser step.
        total_steps: Steps of the whole run.
        peak: Highest rate.
        warmup: Share of the steps that rise, in ``[0, 1)``.

    Returns:
        The rate of this step; never zero before the end, so that no step is idle.
    """
    rising = math.ceil(warmup * total_steps)
    if step < rising:
        return peak * (step + 1) / (rising + 1)
    share = (step - rising) / max(1, total_steps - rising)
    return peak * 0.5 * (1.0 + math.cos(math.pi * share))


def clip_gradients(parameters: Sequence[nn.Parameter], most: float) -> float:
    """Scales the gradients to a global L2 norm of at most ``most`` (0 = not at all); tells the norm before.

    What ``clip_grad_norm_`` does, without the milliseconds of its bookkeeping on every step of a small model.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients))))
    if 0 < most < norm < math.inf:
        torch._foreach_mul_(gradients, most / (norm + 1e-6))
    return norm


def autocast_of(precision: str, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """The context in which a training step of this precision runs."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16 if precision == "bf16" else torch.float16)


class FusedAdamW:
    """AdamW (Loshchilov & Hutter, arXiv 1711.05101) whose decay spares biases and other vectors.

    Kernel, numbers and state are those of ``torch.optim.AdamW(fused=True)``. That class loads torch's
    compiler (a CPU second a process), and its step's bookkeeping costs as much as a small model's arithmetic.

    Args:
        parameters: What to fit.
        options: Weight decay, and the first learning rate.

    Attributes:
        param_groups: Matrices and vectors, as a ``GradScaler`` reads them.
        learning_rate: Rate of the next step.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], options: TrainingConfig) -> None:
        # Decay shrinks matrices; on biases and scales it only moves the operating point.
        matrices = [p for p in parameters if p.ndim >= 2]
        vectors = [p for p in parameters if p.ndim < 2]
        self.param_groups: list[dict[str, Any]] = [
            {"params": matrices, "weight_decay": options.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.learning_rate = options.learning_rate
        self._betas = (0.9, 0.999)
        self._state: list[list[tuple[Tensor, Tensor, Tensor]]] = [
            [
                (torch.zeros((), device=p.device), torch.zeros_like(p.detach()), torch.zeros_like(p.detach()))
                for p in group["params"]
            ]
            for group in self.param_groups
        ]

    @torch.no_grad()
    def step(self) -> None:
        """Moves the parameters that have a gradient."""
        for group, state in zip(self.param_groups, self._state, strict=True):
            live = [
                (p, p.grad, *of) for p, of in zip(group["params"], state, strict=True) if p.grad is not None
            ]
            if not live:
                continue
            parameters, gradients, steps, means, squares = map(list, zip(*live, strict=True))
            torch._foreach_add_(steps, 1.0)
            torch._fused_adamw_(
                parameters, gradients, means, squares, [], steps, lr=self.learning_rate,
                beta1=self._betas[0], beta2=self._betas[1], weight_decay=group["weight_decay"], eps=1e-8,
                amsgrad=False, maximize=False,
            )  # fmt: skip

    def zero_grad(self) -> None:
        """Forgets the gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """State for the resume checkpoint, in the layout of torch's optimisers."""
        flat = [of for state in self._state for of in state]
        return {"state": {n: dict(zip(_STATE, of, strict=True)) for n, of in enumerate(flat)}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores ``state_dict()``, also that of ``torch.optim.AdamW``."""
        for number, of in enumerate(of for state in self._state for of in state):
            # Torch keeps none of a parameter that never had a gradient.
            for mine, name in zip(of, _STATE if number in state["state"] else (), strict=False):
                mine.copy_(state["state"][number][name])


_STATE = ("step", "exp_avg", "exp_avg_sq")


def rank_of(scores: Mapping[str, float], options: TrainingConfig) -> list[float]:
    """What the kept epoch is greatest in: the chosen score, then the lower validation loss."""
    loss = scores["val_loss"] if math.isfinite(scores["val_loss"]) else math.inf
    if options.selection == "loss":
        return [-loss]
    return [scores[f"val_{options.selection}"], -loss]


class WeightAverage:
    """Follows parameters by ``average ← decay · average + (1 − decay) · value`` and stands in for them.

    The decay grows from 0 as ``min(decay, (1 + t) / (10 + t))`` so that the random start is forgotten at once
    (as in TensorFlow's ``ExponentialMovingAverage``). Buffers are not averaged: the running statistics in
    them are averages already.

    Args:
        parameters: What to follow.
        decay: In ``[0, 1)``; 0 = off, the average is the live value.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self._live = list(parameters)
        self._decay = decay
        self._steps = 0
        self._average = [p.detach().clone() for p in self._live] if decay else []

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the weights after an optimiser step."""
        if not self._average:
            return
        self._steps += 1
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        torch._foreach_lerp_(self._average, [p.detach() for p in self._live], 1.0 - decay)

    @contextlib.contextmanager
    def average_parameters(self) -> Iterator[None]:
        """Puts the average in place of the live weights for the length of the block."""
        if not self._average:
            yield
            return
        held = [p.detach().clone() for p in self._live]
        self._write(self._average)
        try:
            yield
        finally:
            self._write(held)

    @torch.no_grad()
    def _write(self, values: Sequence[Tensor]) -> None:
        for parameter, value in zip(self._live, values, strict=True):
            parameter.copy_(value)

    def state_dict(self) -> dict[str, object]:
        """State for the resume checkpoint."""
        return {"steps": self._steps, "average": list(self._average)}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Restores ``state_dict()``."""
        steps, average = state["steps"], state["average"]
        assert isinstance(steps, int)
        assert isinstance(average, list)
        self._steps = steps
        for mine, saved in zip(self._average, average, strict=True):
            mine.copy_(saved)
