"""Ragged batches without padding, and buckets of bags of near-equal length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from wsi_ncmi.core.errors import InputError


@dataclass(frozen=True)
class BagBatch:
    """B bags packed one after the other.

    Attributes:
        features: Instances of all bags (ΣN, D), any floating dtype; models cast to their own.
        lengths: Instances of each bag (B,), int64, each at least 1, summing to ΣN.
        coordinates: Place of each instance (ΣN, 2), any dtype and unit, for the models that use it.

    Raises:
        InputError: An empty bag, or lengths that don't sum to the instances (checked where the lengths are on
            the CPU; on another device the check would wait for it).
    """

    features: Tensor
    lengths: Tensor
    coordinates: Tensor | None = None

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or self.lengths.ndim != 1:
            raise ValueError(
                f"features must be (ΣN, D) and lengths (B,), "
                f"got {tuple(self.features.shape)} and {tuple(self.lengths.shape)}"
            )
        if self.lengths.device.type == "cpu" and (min(self.sizes, default=0) < 1 or self._total_differs):
            raise InputError(
                f"The bags have the lengths {self.sizes[:8]} for {len(self.features)} instances; a batch "
                "needs at least one bag, no empty bag, and lengths that sum to the instances "
                "(leave slides without tiles out)."
            )
        if self.coordinates is not None and self.coordinates.shape != (len(self.features), 2):
            raise ValueError(f"coordinates must be (ΣN, 2), got {tuple(self.coordinates.shape)}")

    @property
    def _total_differs(self) -> bool:
        return sum(self.sizes) != len(self.features)

    @classmethod
    def pack(cls, bags: Sequence[Tensor], coordinates: Sequence[Tensor | None] = ()) -> BagBatch:
        """Packs separate bags.

        Args:
            bags: Tensors (N_i, D) of one width, N_i at least 1.
            coordinates: (N_i, 2) of each bag; where one bag has none, the batch has none.

        Raises:
            InputError: No bag, an empty bag, or bags of different width.
        """
        if not bags:
            raise InputError("A batch needs at least one bag; got none.")
        width = bags[0].shape[1]
        for position, bag in enumerate(bags):
            if bag.ndim != 2 or bag.shape[0] == 0 or bag.shape[1] != width:
                raise InputError(
                    f"Bag {position} of the batch has shape {tuple(bag.shape)}; every bag must hold at least "
                    f"one instance of width {width} (leave slides without tiles out of training)."
                )
        lengths = torch.tensor([bag.shape[0] for bag in bags], dtype=torch.int64)
        # The check of the lengths is done; on a device they follow the features.
        features = bags[0]
        if len(bags) > 1:
            with torch.autocast(
                features.device.type, enabled=False
            ):  # which joins no float64 or float16 on CPUs
                features = torch.cat(list(bags))
        known = [coords for coords in coordinates if coords is not None]
        coords = torch.cat(known) if known and len(known) == len(bags) else None
        return cls(features, lengths.to(features.device), coords)

    @classmethod
    def from_padded(cls, features: Tensor, lengths: Tensor) -> BagBatch:
        """Packs a padded batch.

        Args:
            features: (B, M, D); rows from ``lengths[b]`` on are padding, whatever they hold.
            lengths: (B,), int64, each in 1…M.

        Raises:
            InputError: A length below 1 or above M.
        """
        longest = features.shape[1]
        if int(lengths.min()) < 1 or int(lengths.max()) > longest:
            raise InputError(
                f"A padded batch of {longest} rows a bag has the lengths {lengths.tolist()[:8]}; each must "
                f"be between 1 and {longest}."
            )
        kept = torch.arange(longest, device=features.device) < lengths.to(features.device).unsqueeze(1)
        return cls(features[kept], lengths)

    def padded(self) -> tuple[Tensor, Tensor]:
        """The bags side by side.

        Returns:
            Features (B, M, D), zero beyond each bag's end, and which rows are instances, bool (B, M).
        """
        longest = max(self.sizes)
        kept = torch.arange(longest, device=self.features.device) < self.lengths.unsqueeze(1)
        features = self.features.new_zeros(len(self), longest, self.features.shape[1])
        features[kept] = self.features
        return features, kept

    def __len__(self) -> int:
        return int(self.lengths.shape[0])

    @cached_property
    def sizes(self) -> list[int]:
        """The lengths as Python numbers; ``to`` keeps them, so that no model waits for a device."""
        sizes: list[int] = self.lengths.tolist()
        return sizes

    @cached_property
    def offsets(self) -> Tensor:
        """Start of each bag and the end of the last, (B + 1,) int64."""
        return torch.nn.functional.pad(self.lengths.cumsum(0), (1, 0))

    @cached_property
    def bag_index(self) -> Tensor:
        """The bag of each instance, (ΣN,) int64, ascending."""
        if len(self) == 1:
            return self.lengths.new_zeros(len(self.features))
        return torch.repeat_interleave(
            torch.arange(len(self), device=self.lengths.device),
            self.lengths,
            output_size=self.features.shape[0],
        )

    def subsampled(self, limit: int, generator: torch.Generator | None = None) -> BagBatch:
        """At most ``limit`` instances of each bag, drawn without replacement and kept in their order.

        Args:
            limit: Most instances of a bag, at least 1.
            generator: Source of the draws, on the CPU; None takes torch's own.

        Raises:
            InputError: The limit is below 1.
        """
        if limit < 1:
            raise InputError(f"At least one instance of a bag must be kept, got a limit of {limit}.")
        rows, start = [], 0
        for size in self.sizes:
            if size > limit:
                drawn = torch.randperm(size, generator=generator)[:limit].sort().values
            else:
                drawn = torch.arange(size)
            rows.append(drawn + start)
            start += size
        return self.select(torch.cat(rows), [min(size, limit) for size in self.sizes])

    def select(self, rows: Tensor, sizes: Sequence[int]) -> BagBatch:
        """The batch of some of the instances, in the given order.

        Args:
            rows: Positions in the packed matrix, int64 (M,), bag after bag.
            sizes: How many of them belong to each bag; more or fewer bags than here are allowed.
        """
        rows = rows.to(self.features.device)
        lengths = torch.tensor(list(sizes), dtype=torch.int64, device=self.lengths.device)
        coords = None if self.coordinates is None else self.coordinates[rows]
        batch = BagBatch(self.features[rows], lengths, coords)
        batch.__dict__["sizes"] = list(sizes)
        return batch

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> BagBatch:
        """The batch on another device, the features in ``dtype`` when given."""
        if self.features.device == torch.device(device) and dtype in (None, self.features.dtype):
            return self
        coords = self.coordinates
        moved = BagBatch(
            self.features.to(device=device, dtype=dtype, non_blocking=True),
            self.lengths.to(device=device, non_blocking=True),
            None if coords is None else coords.to(device=device, non_blocking=True),
        )
        moved.__dict__["sizes"] = self.sizes
        return moved


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
