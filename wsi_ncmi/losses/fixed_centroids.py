"""Fixed centroids (code words), and the log form of the loss on them in one pass.

On a bag-sized batch a step of the loss is a dozen tiny operations, and each one costs more to record for the
backward pass than to compute. With fixed centroids the gradient is known in closed form
(``docs/explanation/ncmi.md``), so it is computed with the value and autograd sees a single operation: the
default costs what cross-entropy costs.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, normalize

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.losses.ncmi_form import Centroids


def symbols_needed(kind: Centroids, num_classes: int, requested: int) -> int:
    """The number of symbols m to project to: ``requested``, or the next size that fits the code words.

    Orthogonal words of the Sylvester–Hadamard kind (also the start of learned words and class means) need a
    power of two above C, as the constant row is left out; simplex and identity words need m ≥ C.
    """
    if kind in ("simplex", "identity"):
        return max(requested, num_classes)
    smallest = 1 << num_classes.bit_length()
    return (
        requested
        if requested >= smallest and _is_power_of_two(requested)
        else max(smallest, _next_power(requested))
    )


def code_word_scores(kind: Centroids, num_classes: int, symbols: int, scale: float) -> Tensor:
    """Scores (C, m) whose sigmax or softmax are the code words.

    - ``orthogonal`` (and the start of ``learned`` and ``means``): rows 2…C+1 of the Hadamard matrix times the
      scale where m is a power of two above C: each word has half of the symbols on, and any two words agree
      on exactly half. For other m ≥ C: one symbol (group) a class, ±scale.
    - ``simplex``: the C vertices of a regular simplex (equiangular tight frame, cosine −1/(C−1)), padded.
    - ``identity``: scale · eye(C, m) + 1e-6, the start of the paper's public code.

    Args:
        kind: Which words.
        num_classes: Number of classes C.
        symbols: Number of symbols m, at least C.
        scale: Size of a score.

    Returns:
        float64 (C, m).

    Raises:
        InputError: Fewer symbols than classes.
    """
    if symbols < num_classes:
        raise InputError(
            f"{symbols} symbols can't tell {num_classes} classes apart; give at least one symbol a class."
        )
    if kind == "identity":
        return scale * torch.eye(num_classes, symbols, dtype=torch.float64) + 1e-6
    if kind == "simplex":
        words = torch.eye(num_classes, symbols, dtype=torch.float64)
        words[:, :num_classes] -= 1 / num_classes
        return scale * normalize(words, dim=1)
    if _is_power_of_two(symbols) and symbols > num_classes:
        rows = torch.ones(1, 1, dtype=torch.float64)
        while len(rows) < symbols:  # Sylvester's construction
            rows = torch.cat([torch.cat([rows, rows], 1), torch.cat([rows, -rows], 1)])
        return scale * rows[1 : num_classes + 1]
    assigned = torch.arange(symbols) * num_classes // symbols
    return scale * torch.where(assigned == torch.arange(num_classes).unsqueeze(1), 1.0, -1.0).double()


def _is_power_of_two(n: int) -> bool:
    return n & (n - 1) == 0


def _next_power(n: int) -> int:
    return 1 << (n - 1).bit_length()


def linear_class_scores(log_s: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """The linear layer from log p to KL(s_0‖p)/τ − KL(s_j‖p)/τ: weight (C, m) and bias (C,).

    Class 0 is subtracted from all, which a softmax doesn't see: so a symbol that all centroids share has no
    gradient at all. Otherwise it had one of rounding errors alone, of which Adam makes whole steps.

    Args:
        log_s: Log-centroids (C, m).
        tau: Temperature τ.
    """
    weight = log_s.exp() / tau
    bias = -(weight * log_s).sum(dim=1)
    return weight - weight[:1], bias - bias[:1]


def linear_log_form(
    u: Tensor,
    y: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    power: float,
    sigmax: bool,
    sample_weights: Tensor | None = None,
) -> Tensor:
    """Mean of w·(1 − P_y^q)/q, P = softmax of the class scores weight·log σ(u) + bias; q = 0 gives −log P_y.

    Args:
        u: Symbol scores (B, m), float32 or float64; alone gets a gradient.
        y: Class indices (B,).
        weight: Centroids over τ, (C, m), of the dtype of ``u``.
        bias: Added to the class scores, (C,).
        power: q in [−1, 1].
        sigmax: Whether the symbols are mapped by σ (log σ(u)), or by exp (u itself).
        sample_weights: A weight a sample, (B,); None weighs all 1.

    Returns:
        The loss, a scalar.
    """
    if torch.is_grad_enabled() and u.requires_grad:
        loss: Tensor = _LinearLogForm.apply(u, y, weight, bias, power, sigmax, sample_weights)
        return loss
    return _loss(_log_shares(u, weight, bias, sigmax), y.unsqueeze(1), power, sample_weights)[0]


def _log_shares(u: Tensor, weight: Tensor, bias: Tensor, sigmax: bool) -> Tensor:
    return torch.addmm(bias, logsigmoid(u) if sigmax else u, weight.T).log_softmax(dim=1)


def _loss(log_p: Tensor, y: Tensor, power: float, sample_weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """The loss for classes y (B, 1), and q · log P_y (B, 1)."""
    own = log_p.gather(1, y)
    scaled = power * own
    losses = own.neg() if power == 0 else torch.expm1(scaled) / -power
    losses = losses if sample_weights is None else losses * sample_weights.unsqueeze(1)
    return losses.view(()) if len(losses) == 1 else losses.mean(), scaled


class _LinearLogForm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        u: Tensor,
        y: Tensor,
        weight: Tensor,
        bias: Tensor,
        power: float,
        sigmax: bool,
        sample_weights: Tensor | None,
    ) -> Tensor:
        log_p = _log_shares(u, weight, bias, sigmax)
        column = y.unsqueeze(1)
        loss, scaled = _loss(log_p, column, power, sample_weights)
        # ∂L/∂score_j = w P_y^q (P_j − 1{j = y}) / B and ∂ log σ(u)/∂u = σ(−u).
        slope = torch.ones_like(scaled) if power == 0 else scaled.exp_()
        if len(u) > 1:
            slope.div_(len(u))
        if sample_weights is not None:
            slope *= sample_weights.unsqueeze(1)
        of_scores = log_p.exp_().mul_(slope)
        of_scores.scatter_add_(1, column, slope.neg_())
        of_u = of_scores @ weight
        of_u = of_u.mul_(u.neg().sigmoid_()) if sigmax else of_u
        ctx.save_for_backward(of_u, u, y, weight, bias, sample_weights)  # type: ignore[arg-type]
        ctx.form = power, sigmax  # type: ignore[attr-defined]
        return loss

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> tuple[Any, ...]:
        of_u, u, y, weight, bias, sample_weights = ctx.saved_tensors  # type: ignore[attr-defined]
        if not torch.is_grad_enabled():
            return of_u * gradients[0], None, None, None, None, None, None
        # A second derivative may be wanted (create_graph): only autograd's own operations have one.
        power, sigmax = ctx.form  # type: ignore[attr-defined]
        loss, _ = _loss(_log_shares(u, weight, bias, sigmax), y.unsqueeze(1), power, sample_weights)
        (of_u,) = torch.autograd.grad(loss, u, gradients[0], create_graph=True)
        return of_u, None, None, None, None, None, None
