"""The running mean that is subtracted from the symbol scores."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from wsi_ncmi.losses.distributed import is_distributed, sum_over_ranks

__all__ = ["CentringStart", "RunningCentre"]

CentringStart = Literal["cumulative", "batch"]


class RunningCentre(nn.Module):
    """Exponential moving average of the scores, updated in training before it is subtracted.

    As long as fewer than two samples were seen nothing is subtracted: the mean of one sample is the sample
    itself, and its centred score would be zero. Under data parallelism the mean is that of all processes.

    Args:
        width: Number of scores m.
        momentum: Weight of the past in an update.
        start: ``batch``: the first batch (of at least two samples) initialises the mean and the momentum
        rules
            from then on, as in the paper's public code. ``cumulative``: the exact mean of all samples so far,
            until their number makes the momentum the slower one of the two.

    Attributes:
        mean: The running mean (m,).
        seen: Samples seen, ().
    """

    mean: Tensor
    seen: Tensor

    def __init__(self, width: int, momentum: float, start: CentringStart = "cumulative") -> None:
        super().__init__()
        self.momentum = momentum
        self.start = start
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("seen", torch.zeros(()))

    @torch.no_grad()
    def update(self, u: Tensor) -> None:
        """Takes a batch of scores (B, m) into the mean."""
        batch_mean, count = self._batch_mean(u.detach())
        self.seen.add_(count)
        share = count / self.seen
        if self.start == "cumulative":
            share = share.clamp_(min=1 - self.momentum)
        else:
            share = torch.where(self.seen - count < 2, share, 1 - self.momentum)
        self.mean.lerp_(batch_mean.to(self.mean.dtype), share.to(self.mean.dtype))

    def _batch_mean(self, u: Tensor) -> tuple[Tensor, Tensor | int]:
        if not is_distributed():
            return u.mean(dim=0), u.shape[0]
        number = torch.full((1,), float(u.shape[0]), dtype=u.dtype, device=u.device)
        total = sum_over_ranks(torch.cat([u.sum(dim=0), number]))
        return total[:-1] / total[-1], total[-1]

    def forward(self, u: Tensor) -> Tensor:
        """Subtracts the mean from scores (B, m); in training it is updated first."""
        if self.training:
            self.update(u)
            if u.shape[0] > 1:
                return u - self.mean.to(u.dtype)
        return u - torch.where(self.seen >= 2, self.mean, 0.0).to(u.dtype)
