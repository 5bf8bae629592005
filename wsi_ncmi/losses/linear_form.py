"""The log form with resting centroids, value and gradient in one pass: the default must cost what CE costs.

On a bag-sized batch a step of the loss is a dozen tiny operations, and each one costs more to record for the
backward pass than to compute. The gradient is known in closed form (``docs/ncmi.md``), so it is computed with
the value and autograd sees a single operation.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

__all__ = ["class_lines", "linear_log_form"]


def class_lines(log_s: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """What makes KL(s_0‖p)/τ − KL(s_j‖p)/τ of log p: a matrix (C, m) and an offset (C,).

    Class 0 is subtracted from all, which a softmax doesn't see: so a symbol that all centroids share has no
    gradient at all. Otherwise it had one of rounding errors alone, of which Adam makes whole steps.

    Args:
        log_s: Log-centroids (C, m).
        tau: Temperature τ.
    """
    words = log_s.exp() / tau
    offset = -(words * log_s).sum(dim=1)
    return words - words[:1], offset - offset[:1]


def linear_log_form(
    u: Tensor,
    y: Tensor,
    words: Tensor,
    offset: Tensor,
    *,
    power: float,
    sigmax: bool,
    weights: Tensor | None = None,
) -> Tensor:
    """Mean of w·(1 − P_y^q)/q, P = softmax of the class scores words·log σ(u) + offset; q = 0 gives −log P_y.

    Args:
        u: Symbol scores (B, m), float32 or float64; alone gets a gradient.
        y: Class indices (B,).
        words: Centroids over τ, (C, m), of the dtype of ``u``.
        offset: What is added to the class scores, (C,).
        power: q in [−1, 1].
        sigmax: Whether the symbols are mapped by σ (log σ(u)), or by exp (u itself).
        weights: A weight a sample, (B,); None weighs all 1.

    Returns:
        The loss, a scalar.
    """
    if torch.is_grad_enabled() and u.requires_grad:
        loss: Tensor = _LinearLogForm.apply(u, y, words, offset, power, sigmax, weights)
        return loss
    return _loss(_log_shares(u, words, offset, sigmax), y, power, weights)[0]


def _log_shares(u: Tensor, words: Tensor, offset: Tensor, sigmax: bool) -> Tensor:
    return torch.addmm(offset, logsigmoid(u) if sigmax else u, words.T).log_softmax(dim=1)


def _loss(log_p: Tensor, y: Tensor, power: float, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """The loss, and log P_y (B, 1)."""
    own = log_p.gather(1, y.unsqueeze(1))
    losses = own.neg() if power == 0 else torch.expm1(power * own) / -power
    return (losses if weights is None else losses * weights.unsqueeze(1)).mean(), own


class _LinearLogForm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        u: Tensor,
        y: Tensor,
        words: Tensor,
        offset: Tensor,
        power: float,
        sigmax: bool,
        weights: Tensor | None,
    ) -> Tensor:
        log_p = _log_shares(u, words, offset, sigmax)
        loss, own = _loss(log_p, y, power, weights)
        # ∂L/∂score_j = w P_y^q (P_j − 1{j = y}) / B and ∂ log σ(u)/∂u = σ(−u).
        slope = torch.full_like(own, 1 / len(u)) if power == 0 else (power * own).exp_().div_(len(u))
        if weights is not None:
            slope *= weights.unsqueeze(1)
        of_scores = log_p.exp_().mul_(slope)
        of_scores.scatter_add_(1, y.unsqueeze(1), slope.neg_())
        of_u = of_scores @ words
        of_u = of_u.mul_(u.neg().sigmoid_()) if sigmax else of_u
        ctx.save_for_backward(of_u, u, y, words, offset, weights)  # type: ignore[arg-type]
        ctx.form = power, sigmax  # type: ignore[attr-defined]
        return loss

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> tuple[Any, ...]:
        of_u, u, y, words, offset, weights = ctx.saved_tensors  # type: ignore[attr-defined]
        if not torch.is_grad_enabled():
            return of_u * gradients[0], None, None, None, None, None, None
        # A second derivative may be wanted (create_graph): only autograd's own operations have one.
        power, sigmax = ctx.form  # type: ignore[attr-defined]
        loss, _ = _loss(_log_shares(u, words, offset, sigmax), y, power, weights)
        (of_u,) = torch.autograd.grad(loss, u, gradients[0], create_graph=True)
        return of_u, None, None, None, None, None, None
