"""Bags packed into one ``.npz``: ``features`` (ΣN, D), ``lengths``, ``label``, ``slide_id``, ``case_id``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.cohorts.cohort import Cohort
from wsi_ncmi.cohorts.embedded import cohort_of_columns
from wsi_ncmi.cohorts.sources import checked_bag
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.features.interchange.packed import PackedSet

__all__ = ["PackedBags"]


class PackedBags:
    """Bag source over a packed ``.npz``; see ``BagSource``.

    Features stored without compression (``np.savez``) are memory-mapped inside the archive, so opening costs
    nothing and processes share the pages; compressed ones are inflated once, when the file is opened.

    Raises:
        InputError: Not an archive, a key missing, or arrays that don't fit each other.
    """

    def __init__(self, path: Path) -> None:
        self._set = PackedSet(path)
        self.path = path
        self.slide_ids = self._set.slide_ids
        self.lengths: NDArray[np.int64] = self._set.lengths
        self.width = int(self._set.table.shape[1])
        self.encoder = self._set.encoder()

    def __reduce__(self) -> tuple[type[PackedBags], tuple[Path]]:
        # Another process opens the file itself; a pickled memory map would carry all features along.
        return PackedBags, (self.path,)

    def load(self, slide_id: str) -> NDArray[np.float16]:
        """Embeddings of one slide, float16 (N, D), a copy in memory."""
        try:
            bag = self._set.features(slide_id)
        except KeyError:
            raise InputError(f"{self.path} has no slide {slide_id!r}.") from None
        return checked_bag(bag, slide_id, self.path)

    def coordinates(self, slide_id: str) -> NDArray[np.int64] | None:
        """Places of a slide's tiles (N, 2), or None where the file has none."""
        return self._set.coordinates(slide_id)

    def embedded_cohort(self, group: str | None = None) -> Cohort | None:
        """The labels in the file, or None where it has no ``label``; see ``cohort_of_columns``."""
        texts = self._set.texts
        return cohort_of_columns(
            self.path, self.slide_ids, texts.get("label"), texts.get("case_id"), texts.get("centre"), group
        )
