"""Which bags, and which tiles of them, a step sees: pure functions of seed, epoch and step."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.training.seeding import derive_seed

__all__ = ["EpochSampler", "draw_instances"]


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
