"""Which bags, and which tiles of them, a step of the training sees: drawn, shared out and read ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.mil.base import BagBatch
from wsi_ncmi.parallel import process_group as distributed
from wsi_ncmi.training.batches import BagCache
from wsi_ncmi.training.config import TrainingConfig
from wsi_ncmi.training.sampling import EpochSampler, draw_instances

__all__ = ["LabelledSlides", "StepBags", "reserve_for"]

_READ_AHEAD = 1


@dataclass(frozen=True)
class LabelledSlides:
    """One part of a fold: slide ids, class indices, int64 (n,), and numbers of the patients where known."""

    slide_ids: tuple[str, ...]
    y: NDArray[np.int64]
    patients: NDArray[np.int64] | None = None


def reserve_for(cache: BagCache, train: LabelledSlides, options: TrainingConfig) -> None:
    """Leaves room in the cache's budget for the batches of a training, before any bag is kept."""
    lengths = cache.lengths(train.slide_ids)
    largest = np.sort(np.minimum(lengths, options.max_instances or lengths.max()))[-options.batch_size :]
    cache.reserve(int(largest.sum()), 1 + _READ_AHEAD)


class StepBags:
    """The bags of every step, as functions of seed, epoch and step alone: that is what makes a resume exact.

    Args:
        cache: The bags.
        train: The training part.
        options: Batch size, accumulation, sampler and tiles a bag.
        seed: Seed of order and tile draws.

    Raises:
        InputError: There are more processes than slides in a step.
    """

    def __init__(self, cache: BagCache, train: LabelledSlides, options: TrainingConfig, seed: int) -> None:
        self._cache, self._train, self._options, self._seed = cache, train, options, seed
        self._lengths = cache.lengths(train.slide_ids)
        reserve_for(cache, train, options)
        self._sampler = EpochSampler(
            train.y, batch_size=options.batch_size * options.accumulate, mode=options.sampler, seed=seed,
            patients=train.patients,
        )  # fmt: skip
        least = len(train.slide_ids) // self._sampler.steps_per_epoch
        if least < distributed.world_size():
            raise InputError(
                f"{distributed.world_size()} processes can't share steps of {least} slides; raise "
                "training.batch_size or start fewer processes."
            )

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of an epoch."""
        return self._sampler.steps_per_epoch

    def of_epoch(self, epoch: int) -> list[NDArray[np.int64]]:
        """Positions in the training part of the bags of each step."""
        return self._sampler.batches(epoch)

    def shares(self, chosen: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Positions in a step's bags of each batch that this process computes one after the other."""
        mine = np.arange(len(chosen))[distributed.share_of(len(chosen))]
        return [part for part in np.array_split(mine, self._options.accumulate) if len(part)]

    def reads(
        self, batches: Sequence[NDArray[np.int64]], epoch: int, first_step: int
    ) -> Iterator[Callable[[], BagBatch]]:
        """What reads each batch of this process, step by step from the first one that is left."""
        for step in range(first_step, len(batches)):
            for share in self.shares(batches[step]):
                yield partial(self._read, epoch, step, batches[step], share)

    def _read(self, epoch: int, step: int, chosen: NDArray[np.int64], share: NDArray[np.int64]) -> BagBatch:
        rows = None
        if self._options.max_instances is not None:
            # Drawn for the whole step: how it is shared out does not change what is drawn.
            limit = self._options.max_instances
            drawn = draw_instances(self._lengths[chosen], limit, self._seed, epoch, step)
            rows = [drawn[i] for i in share]
        return self._cache.pack([self._train.slide_ids[i] for i in chosen[share]], rows)

    def ahead_on(self, device: torch.device) -> int:
        """Batches to read ahead: none where all bags are in memory on the device's side.

        A thread would only cost its hand-overs there.
        """
        return 0 if self._cache.holds(self._train.slide_ids) and device.type == "cpu" else _READ_AHEAD
