"""Draws of bags and tiles: pure functions of seed, epoch and step, shared out and read ahead."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.mil.base import BagBatch
from wsi_ncmi.parallel import process_group as distributed
from wsi_ncmi.training.bags import BagCache
from wsi_ncmi.training.config import TrainingConfig


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Derives a seed that depends on the base seed and the purpose only.

    Args:
        seed: The run's seed.
        *purpose: What the numbers are for, for example ``"aggregator"`` or ``("order", epoch)``.

    Returns:
        An integer in ``[0, 2**63)``, equal on every machine and Python version.
    """
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


class EpochSampler:
    """Deals the bags of every epoch into batches.

    It keeps no state: an epoch's batches follow from the seed and the epoch's number alone, so a resumed run
    continues at any (epoch, step) exactly.

    Args:
        labels: Class index of every training bag, int64 (n,).
        batch_size: Most bags per batch. The bags of an epoch are dealt into near-equal batches; no batch is a
            small rest.
        mode: ``shuffle`` = every bag once; ``class_balanced`` and ``patient_balanced`` = n draws with
            replacement, in which every class (or patient) that is present is equally likely.
        seed: The run's seed.
        patients: Patient of every bag, as any whole number, int64 (n,); needed by ``patient_balanced``.

    Raises:
        InputError: ``patient_balanced`` without patients.
    """

    def __init__(
        self,
        labels: NDArray[np.int64],
        *,
        batch_size: int,
        mode: Literal["shuffle", "class_balanced", "patient_balanced"],
        seed: int,
        patients: NDArray[np.int64] | None = None,
    ) -> None:
        self._count = len(labels)
        self._seed = seed
        self._mode = mode
        self.steps_per_epoch = -(-self._count // batch_size)
        groups = labels
        if mode == "patient_balanced":
            if patients is None:
                raise InputError("The sampler 'patient_balanced' needs to know the patient of every slide.")
            groups = np.unique(patients, return_inverse=True)[1]
        share = 1.0 / np.bincount(groups)[groups]
        self._probability = share / share.sum()

    def batches(self, epoch: int) -> list[NDArray[np.int64]]:
        """Positions of the bags of each step of an epoch, int64 arrays."""
        generator = np.random.default_rng(derive_seed(self._seed, "order", epoch))
        if self._mode == "shuffle":
            order = generator.permutation(self._count)
        else:
            order = generator.choice(self._count, size=self._count, p=self._probability)
        return np.array_split(order.astype(np.int64), self.steps_per_epoch)


def draw_instances(lengths: NDArray[np.int64], limit: int, *seed: int) -> list[NDArray[np.int64] | None]:
    """Draws at most ``limit`` tiles of each bag, without replacement and in the bag's order.

    Args:
        lengths: Tiles of each bag, int64 (b,).
        limit: Most tiles to keep.
        *seed: Base seed, then epoch and step.

    Returns:
        For each bag the sorted positions to keep, or ``None`` where the whole bag fits.
    """
    generator = np.random.default_rng(derive_seed(seed[0], "instances", *seed[1:]))
    return [
        np.sort(generator.choice(length, size=limit, replace=False)) if length > limit else None
        for length in lengths.tolist()
    ]


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
    bags = options.bags_per_batch(len(train.slide_ids))
    largest = np.sort(np.minimum(lengths, options.max_instances or lengths.max()))[-bags:]
    cache.reserve(int(largest.sum()), 1 + _READ_AHEAD)


class BagLoader:
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
            train.y, batch_size=options.bags_per_batch(len(train.slide_ids)) * options.accumulate,
            mode=options.sampler, seed=seed, patients=train.patients,
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
        if self._options.accumulate == 1:
            return [mine]
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

    def prefetch_depth(self, device: torch.device) -> int:
        """Batches to read ahead: none where all bags are in memory on the device's side.

        A thread would only cost its hand-overs there.
        """
        return 0 if self._cache.holds(self._train.slide_ids) and device.type == "cpu" else _READ_AHEAD
