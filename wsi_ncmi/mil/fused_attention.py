"""Attention pooling as one operation with a backward pass of its own, for training on the CPU.

The same numbers as the layers of :class:`~wsi_ncmi.mil.abmil.ABMIL` one after the other, to rounding. What it
saves is passes over the activations (masks are applied in place, the first one isn't kept: where the hidden
layer is zero, so is its gradient) and the bookkeeping of some thirty small operations, which on bags of a few
dozen tiles costs more than the arithmetic. Under autocast the products and the branches are bfloat16, the
softmax and the sums over bags float32.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wsi_ncmi.mil.augmentation import FastDropout
from wsi_ncmi.mil.bags import BagBatch
from wsi_ncmi.mil.segments import promote

_DENSE_LENGTH = 512
"""Mean tiles of a bag up to which sums over bags are one product with a (bags, tiles) matrix: its zeros cost
less than a call for each bag."""
_LARGE_ROWS, _BLOCK_ROWS = 4096, 512
"""Tiles from which on the gradient of a float32 weight is summed over blocks, which is a quarter faster."""


class _Bags:
    """Sums over the bags of a batch, and back. One bag takes the same steps without the way to its row."""

    def __init__(self, batch: BagBatch) -> None:
        self.batch, self.index, self.sizes = batch, batch.bag_index, batch.sizes
        self.alone = len(self.sizes) == 1
        self.dense = len(self.index) <= _DENSE_LENGTH * len(self.sizes)

    def matrix(self, weights: Tensor) -> Tensor:
        """(B, N) with the weight of each instance in the row of its bag."""
        if self.alone:
            return weights.unsqueeze(0)
        return weights.new_zeros(len(self.sizes), len(weights)).scatter_(
            0, self.index.unsqueeze(0), weights.unsqueeze(0)
        )

    def of_instances(self, values: Tensor) -> Tensor:
        """One value a bag (B,) for each instance, (N,); of one bag alone (1,)."""
        return values if self.alone else values[self.index]

    def sums(self, values: Tensor, weights: Tensor) -> Tensor:
        """Σ_k w_k v_k of each bag, (B, E)."""
        if self.dense:
            return self.matrix(weights) @ values
        found = values.new_empty(len(self.sizes), values.shape[1])
        parts = zip(torch.split(values, self.sizes), torch.split(weights, self.sizes), found, strict=True)
        for bag, weight, row in parts:
            torch.mv(bag.T, weight, out=row)
        return found

    def dots(self, values: Tensor, rows: Tensor) -> Tensor:
        """⟨v_k, row of its bag⟩ of each instance, (N,)."""
        if self.dense:
            found = values @ rows.T
            return (found if self.alone else found.gather(1, self.index.unsqueeze(1))).squeeze(1)
        found = values.new_empty(len(values))
        for bag, row, part in zip(
            torch.split(values, self.sizes), rows, torch.split(found, self.sizes), strict=True
        ):
            torch.mv(bag, row, out=part)
        return found

    def add_outer(self, target: Tensor, weights: Tensor, rows: Tensor) -> None:
        """Adds w_k · row of its bag to each row of ``target`` (N, E), in place."""
        if self.dense:
            target.addmm_(self.matrix(weights).T, rows)
            return
        parts = zip(torch.split(target, self.sizes), torch.split(weights, self.sizes), rows, strict=True)
        for bag, weight, row in parts:
            bag.addr_(weight, row)

    def softmax(self, scores: Tensor) -> Tensor:
        """Softmax within each bag."""
        if self.alone:
            top = scores.max()
        else:
            top = torch.segment_reduce(scores, "max", offsets=self.batch.offsets, unsafe=True)[self.index]
        exponential = scores.sub(top).exp_()
        total = exponential.new_zeros(len(self.sizes)).index_add_(0, self.index, exponential)
        return exponential.div_(self.of_instances(total))


@dataclass(frozen=True)
class _Plan:
    """Inputs that are not differentiated.

    Attributes:
        bags: Where the bags are.
        masks: Kept elements of the hidden layer and of the branches' output; None keeps all.
        scales: What the kept elements are multiplied by.
        gated: Whether the branches are content and gate.
        dtype: Of the products.
    """

    bags: _Bags
    masks: Sequence[Tensor | None]
    scales: Sequence[float]
    gated: bool
    dtype: torch.dtype

    def dropped(self, place: int, values: Tensor) -> Tensor:
        """Dropout in place."""
        mask = self.masks[place]
        return values if mask is None else values.mul_(mask).mul_(self.scales[place])


def _without_autocast() -> contextlib.AbstractContextManager[object]:
    """Float32 stays float32; entering a context costs more than asking whether one is open."""
    if torch.is_autocast_enabled("cpu"):
        return torch.autocast("cpu", enabled=False)
    return contextlib.nullcontext()


def _weight_gradient(of_output: Tensor, inputs: Tensor) -> Tensor:
    """Gradient (E, D) of a layer's weight from those of its output (N, E) and its inputs (N, D)."""
    if len(inputs) < _LARGE_ROWS or inputs.element_size() < 4:
        return of_output.T @ inputs
    total = inputs.new_zeros(of_output.shape[1], inputs.shape[1])
    parts = (torch.split(each, _BLOCK_ROWS) for each in (of_output, inputs))
    for left, right in zip(*parts, strict=True):
        total.addmm_(left.T, right)
    return total


class _AttentionPool(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, x: Tensor, plan: _Plan, *weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        with _without_autocast():
            x = x.to(plan.dtype)
            w1, b1, w2, b2, w3, b3 = (tensor.to(plan.dtype) for tensor in weights)
            hidden = plan.dropped(0, torch.addmm(b1, x, w1.T).relu_())
            branches = torch.addmm(b2, hidden, w2.T)
            if plan.gated:
                content, gate = branches.chunk(2, dim=1)
                factor = content.tanh_() * gate.sigmoid_()
            else:
                factor = branches.tanh_() if plan.masks[1] is None else branches.tanh_().clone()
            plan.dropped(1, factor)
            attention = plan.bags.softmax(promote(torch.addmm(b3, factor, w3.T)).squeeze(1))
            embedding = plan.bags.sums(promote(hidden), attention)
        ctx.save_for_backward(x, w1, w2, w3, hidden, branches, factor, attention)
        ctx.plan = plan  # type: ignore[attr-defined]
        ctx.dtypes = [tensor.dtype for tensor in weights]  # type: ignore[attr-defined]
        return embedding, attention

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        with _without_autocast():  # also where the caller's context is still open
            return _AttentionPool._gradients(ctx, *gradients)

    @staticmethod
    def _gradients(
        ctx: torch.autograd.function.FunctionCtx, of_embedding: Tensor, of_attention: Tensor
    ) -> tuple[Tensor | None, ...]:
        x, w1, w2, w3, hidden, branches, factor, attention = ctx.saved_tensors  # type: ignore[attr-defined]
        plan: _Plan = ctx.plan  # type: ignore[attr-defined]
        bags = plan.bags
        pull = bags.dots(promote(hidden), of_embedding).add_(of_attention).mul_(attention)
        # Softmax: a ⊙ (g − Σ a g).
        total = pull.new_zeros(len(bags.sizes)).index_add_(0, bags.index, pull)
        of_score = pull.sub_(attention * bags.of_instances(total)).to(plan.dtype)
        of_factor = plan.dropped(1, torch.outer(of_score, w3[0]))
        if plan.gated:
            content, gate = branches.chunk(2, dim=1)
            of_branches = torch.empty_like(branches)
            of_content, of_gate = of_branches.chunk(2, dim=1)
            torch.ops.aten.tanh_backward.grad_input(of_factor * gate, content, grad_input=of_content)
            torch.ops.aten.sigmoid_backward.grad_input(of_factor.mul_(content), gate, grad_input=of_gate)
        else:
            of_branches = torch.ops.aten.tanh_backward(of_factor, branches)
        of_hidden = promote(of_branches @ w2)
        bags.add_outer(of_hidden, attention, of_embedding)
        # Where the hidden layer is zero, ReLU or dropout cut the way back.
        of_hidden = torch.ops.aten.threshold_backward(of_hidden.to(plan.dtype), hidden, 0.0)
        if plan.masks[0] is not None:
            of_hidden.mul_(plan.scales[0])
        of_weights = (
            _weight_gradient(of_hidden, x), of_hidden.sum(0),
            _weight_gradient(of_branches, hidden), of_branches.sum(0),
            of_score.unsqueeze(0) @ factor, of_score.sum().unsqueeze(0),
        )  # fmt: skip
        of_x = promote(of_hidden @ w1) if ctx.needs_input_grad[0] else None  # type: ignore[attr-defined]
        dtypes: list[torch.dtype] = ctx.dtypes  # type: ignore[attr-defined]
        return (of_x, None, *(tensor.to(d) for tensor, d in zip(of_weights, dtypes, strict=True)))


def attention_pool(
    x: Tensor,
    weights: Sequence[Tensor],
    dropouts: Sequence[FastDropout],
    batch: BagBatch,
    *,
    gated: bool,
) -> tuple[Tensor, Tensor]:
    """Embeddings and attention of a batch of bags.

    Args:
        x: Instances (N, D), float32 or float64, on the CPU.
        weights: Weight and bias of the projection (H, D), (H,), of the branches (2A or A, H), and of the
            score (1, A), (1,).
        dropouts: Of the hidden layer and of the branches' output.
        batch: The bags.
        gated: Whether the branches are content and gate.

    Returns:
        Embeddings (B, H) and attention (N,), which sums to 1 in each bag, float32 at least.
    """
    half = torch.is_autocast_enabled("cpu") and x.dtype == torch.float32
    dtype = torch.get_autocast_dtype("cpu") if half else x.dtype
    widths = (weights[0].shape[0], weights[4].shape[1])
    masks = [d.mask((len(x), width), dtype) for d, width in zip(dropouts, widths, strict=True)]
    plan = _Plan(_Bags(batch), masks, [d.scale for d in dropouts], gated, dtype)
    embedding, attention = _AttentionPool.apply(x, plan, *weights)
    return embedding, attention
