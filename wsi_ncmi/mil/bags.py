"""Ragged batches: the instances of all bags in one matrix, no padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from wsi_ncmi.errors import InputError

__all__ = ["BagBatch"]


@dataclass(frozen=True)
class BagBatch:
    """B bags packed one after the other.

    Attributes:
        features: Instances of all bags (ΣN, D), any floating dtype; models cast to their own.
        lengths: Instances of each bag (B,), int64, each at least 1, summing to ΣN.
    """

    features: Tensor
    lengths: Tensor

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or self.lengths.ndim != 1:
            raise ValueError(
                f"features must be (ΣN, D) and lengths (B,), "
                f"got {tuple(self.features.shape)} and {tuple(self.lengths.shape)}"
            )

    @classmethod
    def pack(cls, bags: Sequence[Tensor]) -> BagBatch:
        """Packs separate bags.

        Args:
            bags: Tensors (N_i, D) of one width, N_i at least 1.

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
        lengths = torch.tensor([bag.shape[0] for bag in bags], dtype=torch.int64, device=bags[0].device)
        return cls(bags[0] if len(bags) == 1 else torch.cat(list(bags)), lengths)

    def __len__(self) -> int:
        return int(self.lengths.shape[0])

    @cached_property
    def offsets(self) -> Tensor:
        """Start of each bag and the end of the last, (B + 1,) int64."""
        return torch.nn.functional.pad(self.lengths.cumsum(0), (1, 0))

    @cached_property
    def bag_index(self) -> Tensor:
        """The bag of each instance, (ΣN,) int64, ascending."""
        return torch.repeat_interleave(
            torch.arange(len(self), device=self.lengths.device),
            self.lengths,
            output_size=self.features.shape[0],
        )

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> BagBatch:
        """The batch on another device, the features in ``dtype`` when given."""
        return BagBatch(
            self.features.to(device=device, dtype=dtype, non_blocking=True),
            self.lengths.to(device=device, non_blocking=True),
        )
