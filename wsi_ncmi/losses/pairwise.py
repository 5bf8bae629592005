"""The pairwise separation over the joint batch of all processes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wsi_ncmi.losses.distributed import sum_over_ranks_with_gradient

__all__ = ["PairwiseSeparation"]

_FOLLOW = 0.1


class PairwiseSeparation(nn.Module):
    """Each sample's share of Γ = E[1{Y≠V} H(p_X, p_U)], with a stand-in for classes missing in the batch.

    A missing class (always, at batch size 1) enters as one sample: the running mean of its log p.

    Source: arXiv 2309.09123, equation for Γ; linear in log p_u, so class sums stand in for the pairs.

    Args:
        log_words: Where the running means start, (C, m).

    Attributes:
        mean_log_p: Running mean of log p of each class, (C, m) buffer.
    """

    mean_log_p: Tensor

    def __init__(self, log_words: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean_log_p", log_words.clone())

    def forward(self, log_p: Tensor, y: Tensor) -> Tensor:
        """Shares (B,) of log-probabilities (B, m) with labels (B,)."""
        classes, symbols = self.mean_log_p.shape
        batch = torch.cat([log_p, log_p.new_ones(log_p.shape[0], 1)], dim=1)
        sums = log_p.new_zeros(classes, symbols + 1).index_add_(0, y, batch)
        sums = sum_over_ranks_with_gradient(sums)
        class_sums, counts = sums[:, :-1], sums[:, -1:].detach()
        present = counts > 0
        if self.training:
            with torch.no_grad():
                means = (class_sums / counts.clamp(min=1)).to(self.mean_log_p.dtype)
                followed = self.mean_log_p.lerp(means, _FOLLOW)
                self.mean_log_p.copy_(torch.where(present, followed, self.mean_log_p))
        class_sums = torch.where(present, class_sums, self.mean_log_p.to(log_p.dtype))
        samples = counts.clamp(min=1).sum()
        other_sums = class_sums.sum(dim=0) - class_sums
        return -(log_p.exp() * other_sums[y]).sum(dim=1) / samples
