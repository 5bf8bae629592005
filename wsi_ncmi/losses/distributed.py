"""Sums over the processes of a data-parallel run."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["gather_over_ranks", "is_distributed", "sum_over_ranks", "sum_over_ranks_with_gradient"]


def is_distributed() -> bool:
    """Whether this is one of several processes of one run."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


@torch.no_grad()
def sum_over_ranks(x: Tensor) -> Tensor:
    """Sum of a statistic over all processes, without gradient; the input itself in a single process."""
    if not is_distributed():
        return x
    total = x.detach().clone()
    dist.all_reduce(total)
    return total


@torch.no_grad()
def gather_over_ranks(x: Tensor) -> Tensor:
    """The rows of all processes, those of rank 0 first; the input itself in a single process.

    Args:
        x: (B, …); B may differ between processes.
    """
    if not is_distributed():
        return x
    sizes = torch.zeros(dist.get_world_size(), dtype=torch.int64, device=x.device)
    sizes[dist.get_rank()] = len(x)
    counts = sum_over_ranks(sizes).tolist()
    start = sum(counts[: dist.get_rank()])
    joint = x.new_zeros(sum(counts), *x.shape[1:])
    joint[start : start + len(x)] = x
    return sum_over_ranks(joint)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        return sum_over_ranks(x)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> Tensor:
        # DistributedDataParallel averages the gradients of R equal losses: the sum over ranks makes it whole.
        return sum_over_ranks(gradients[0])


def sum_over_ranks_with_gradient(x: Tensor) -> Tensor:
    """Sum over all processes through which gradients flow; the input itself in a single process."""
    if not is_distributed():
        return x
    total: Tensor = _Sum.apply(x)
    return total
