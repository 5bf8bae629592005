"""Bags of near-equal length side by side, for the models whose instances attend to each other."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wsi_ncmi.mil.bags import BagBatch

MAX_ROWS = 65_536
"""Most rows of a bucket of several bags; a longer bag has a bucket of its own."""


@dataclass(frozen=True)
class Bucket:
    """Some bags of a batch, padded to the longest of them.

    Attributes:
        bags: Positions of the bags in the batch.
        rows: Where each row lies in the packed matrix, int64 (b, M); padding repeats the bag's last row.
        kept: False for padding, bool (b, M); None where nothing is padded.
    """

    bags: tuple[int, ...]
    rows: Tensor
    kept: Tensor | None

    def instances(self) -> Tensor:
        """Positions in the packed matrix without the padding, bag after bag, int64."""
        return self.rows.flatten() if self.kept is None else self.rows[self.kept]

    def of_instances(self, values: Tensor) -> Tensor:
        """Entries of (b, M) values that belong to instances, in the order of :meth:`instances`."""
        return values.flatten() if self.kept is None else values[self.kept]


def make_buckets(batch: BagBatch, *, slack: float = 0.0) -> list[Bucket]:
    """Sorts the bags into buckets.

    Args:
        batch: The bags.
        slack: Most padding, as a share of the longest bag of a bucket; 0 joins bags of equal length alone.
    """
    starts = [0, *torch.tensor(batch.sizes).cumsum(0).tolist()]
    groups: list[list[int]] = []
    for bag in sorted(range(len(batch)), key=lambda bag: -batch.sizes[bag]):
        longest = batch.sizes[groups[-1][0]] if groups else 0
        fits = bool(groups) and batch.sizes[bag] >= (1.0 - slack) * longest
        if fits and longest * (len(groups[-1]) + 1) <= MAX_ROWS:
            groups[-1].append(bag)
        else:
            groups.append([bag])
    return [_bucket(group, [batch.sizes[bag] for bag in group], starts, batch) for group in groups]


def _bucket(group: list[int], sizes: list[int], starts: Sequence[int], batch: BagBatch) -> Bucket:
    device = batch.features.device
    columns = torch.arange(sizes[0], device=device)
    lengths = torch.tensor(sizes, device=device).unsqueeze(1)
    first = torch.tensor([starts[bag] for bag in group], device=device).unsqueeze(1)
    rows = first + torch.minimum(columns, lengths - 1)
    return Bucket(tuple(group), rows, None if sizes[-1] == sizes[0] else columns < lengths)


def scatter_buckets(
    buckets: Sequence[Bucket], embeddings: Sequence[Tensor], attentions: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Brings the results of buckets back into the batch's order.

    Args:
        buckets: All buckets of a batch.
        embeddings: (b, E) of each.
        attentions: (b, M) of each.

    Returns:
        Embeddings (B, E) and attention (ΣN,).
    """
    order = torch.tensor([bag for bucket in buckets for bag in bucket.bags], device=embeddings[0].device)
    embedding = torch.cat(list(embeddings))[order.argsort()]
    rows = torch.cat([bucket.instances() for bucket in buckets])
    parts = zip(buckets, attentions, strict=True)
    return embedding, torch.cat([bucket.of_instances(part) for bucket, part in parts])[rows.argsort()]
