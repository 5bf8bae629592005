"""The optimiser of a run and what its steps need: groups, clipping, precision, and the order of epochs."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from wsi_ncmi.training.config import TrainingConfig

__all__ = ["autocast_of", "clip_gradients", "make_optimizer", "rank_of"]


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


def make_optimizer(parameters: Sequence[nn.Parameter], options: TrainingConfig) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter, arXiv 1711.05101) whose decay spares biases and other vectors."""
    # Decay shrinks matrices; on biases and scales it only moves the operating point.
    matrices = [p for p in parameters if p.ndim >= 2]
    vectors = [p for p in parameters if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": options.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    # One kernel for all tensors: on small models the optimiser's own overhead is a third of a step otherwise.
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=options.learning_rate, fused=True
    )


def rank_of(scores: Mapping[str, float], options: TrainingConfig) -> list[float]:
    """What the kept epoch is greatest in: the chosen score, then the lower validation loss."""
    loss = scores["val_loss"] if math.isfinite(scores["val_loss"]) else math.inf
    if options.selection == "loss":
        return [-loss]
    return [scores[f"val_{options.selection}"], -loss]
