"""Closed-form class means of the outputs between network steps: the alternating half of the algorithm.

For given outputs p the centroids that minimise the concentration are the class means E[p | y] (arXiv
2309.09123). How they are kept up to date while the network moves is a choice: exactly, by a pass over the
training set after each epoch (``NCMILoss.end_epoch``), or in passing, from the batches, by one of the
estimators here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wsi_ncmi.losses.distributed import gather_over_ranks, sum_over_ranks
from wsi_ncmi.losses.functional import safe_log

__all__ = ["MemoryBank", "RunningMeans", "class_sums", "log_means"]


def class_sums(p: Tensor, y: Tensor, num_classes: int) -> Tensor:
    """Sum of p and number of samples of each class over all processes.

    Args:
        p: Probabilities (B, m).
        y: Class indices (B,).
        num_classes: Number of classes C.

    Returns:
        (C, m + 1): the sums, and the counts in the last column.
    """
    return sum_over_ranks(_local_sums(p, y, num_classes))


def _local_sums(p: Tensor, y: Tensor, num_classes: int) -> Tensor:
    sums = p.new_zeros(num_classes, p.shape[1] + 1)
    return sums.index_add_(0, y, torch.cat([p, p.new_ones(p.shape[0], 1)], dim=1))


def log_means(sums: Tensor, old: Tensor) -> Tensor:
    """Logarithms (C, m) of the class means of :func:`class_sums`; a class without a sample keeps ``old``."""
    means = safe_log(sums[:, :-1] / sums[:, -1:].clamp(min=1))
    return torch.where(sums[:, -1:] > 0, means.to(old.dtype), old)


class RunningMeans(nn.Module):
    """Exponential moving average of each class's batch mean.

    Args:
        momentum: Weight of the past in an update, in [0, 1).
    """

    def __init__(self, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum

    @torch.no_grad()
    def forward(self, p: Tensor, y: Tensor, old: Tensor) -> Tensor:
        """Takes in a batch and gives the new log-centroids.

        Args:
            p: Probabilities (B, m).
            y: Class indices (B,).
            old: Log-centroids so far (C, m).
        """
        sums = class_sums(p, y, old.shape[0])
        batch = (sums[:, :-1] / sums[:, -1:].clamp(min=1)).to(old.dtype)
        mixed = torch.lerp(old.exp(), batch, 1 - self.momentum)
        return torch.where(sums[:, -1:] > 0, safe_log(mixed), old)


class MemoryBank(nn.Module):
    """Class means over the last samples of all processes, each as it was when seen.

    Args:
        size: Samples kept.
        symbols: Number of symbols m.

    Attributes:
        outputs: Their p, (size, m) buffer.
        labels: Their classes, (size,) int64 buffer; −1 where nothing is kept yet.
        position: Where the next sample goes, () int64 buffer.
    """

    outputs: Tensor
    labels: Tensor
    position: Tensor

    def __init__(self, size: int, symbols: int) -> None:
        super().__init__()
        self.register_buffer("outputs", torch.zeros(size, symbols))
        self.register_buffer("labels", torch.full((size,), -1))
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def forward(self, p: Tensor, y: Tensor, old: Tensor) -> Tensor:
        """Takes in a batch and gives the new log-centroids (see :class:`RunningMeans`)."""
        size = self.labels.shape[0]
        # Every process keeps the joint bank: data parallelism copies buffers from rank 0 to all.
        p, y = gather_over_ranks(p)[-size:], gather_over_ranks(y)[-size:]
        place = (self.position + torch.arange(len(y), device=y.device)) % size
        self.outputs[place] = p.to(self.outputs.dtype)
        self.labels[place] = y
        self.position.copy_((self.position + len(y)) % size)
        # What is not filled yet is counted into a class of its own, which is dropped.
        classes = old.shape[0]
        labels = torch.where(self.labels < 0, classes, self.labels)
        sums = _local_sums(self.outputs, labels, classes + 1)
        return log_means(sums[:classes], old)
