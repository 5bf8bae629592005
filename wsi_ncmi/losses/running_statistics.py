"""Statistics that follow the network from batch to batch, over all processes of a data-parallel run.

For given outputs p the centroids that minimise the concentration are the class means E[p | y] (arXiv
2309.09123). They are kept up to date exactly, by a pass over the training set after each epoch
(``NCMILoss.end_epoch``), or from the batches, by an estimator of this module.
"""

from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from wsi_ncmi.losses.functional import safe_log


def is_distributed() -> bool:
    """True in one of several processes of a run."""
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


_FOLLOW = 0.1


class PairwiseSeparation(nn.Module):
    """Each sample's share of Γ = E[1{Y≠V} H(p_X, p_U)], with a stand-in for classes missing in the batch.

    A missing class (always, at batch size 1) enters as one sample: the running mean of its log p.

    Source: arXiv 2309.09123, equation for Γ; linear in log p_u, so class sums stand in for the pairs.

    Args:
        log_centroids: Where the running means start, (C, m).

    Attributes:
        mean_log_p: Running mean of log p of each class, (C, m) buffer.
    """

    mean_log_p: Tensor

    def __init__(self, log_centroids: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean_log_p", log_centroids.clone())

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
