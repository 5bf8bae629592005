"""Bags straight from the feature files of CLAM, TRIDENT, STAMP and the ACMIL family."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.cohorts.cohort import Cohort
from wsi_ncmi.cohorts.embedded import cohort_of_columns
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.features.interchange.bag import ExternalFileError, to_half
from wsi_ncmi.features.interchange.base import FeatureSet
from wsi_ncmi.features.interchange.detection import open_feature_set

__all__ = ["ForeignBags"]

_SHOWN = 5


class ForeignBags:
    """Bag source over the files of another tool; see ``BagSource``. Nothing is copied or converted on disk.

    Args:
        features: The opened files.

    Raises:
        InputError: A file can't be used, or files have embeddings of different dimensions.
    """

    def __init__(self, features: FeatureSet) -> None:
        self._set = features
        self.path = features.path
        self.slide_ids = features.slide_ids
        self.encoder = features.encoder()
        shapes: dict[str, tuple[int, int]] = {}
        unusable: list[str] = []
        for slide_id in self.slide_ids:
            try:
                shapes[slide_id] = features.shape(slide_id)
            except ExternalFileError as problem:
                unusable.append(str(problem))
        if unusable:
            shown = " ".join(unusable[:_SHOWN]) + (" …" if len(unusable) > _SHOWN else "")
            raise InputError(f"{len(unusable)} feature files in {self.path} can't be used: {shown}")
        widths = {width: slide_id for slide_id, (_, width) in reversed(shapes.items())}
        if len(widths) > 1:
            (a, slide_a), (b, slide_b) = sorted(widths.items())[:2]
            raise InputError(
                f"{self.path}: slide {slide_a!r} has embeddings of {a} dimensions and {slide_b!r} of {b}; "
                "keep one encoder in a folder."
            )
        self.width = next(iter(widths))
        self.lengths: NDArray[np.int64] = np.array([n for n, _ in shapes.values()], dtype=np.int64)

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return _reopened, (self.path,)

    def load(self, slide_id: str) -> NDArray[np.float16]:
        """Embeddings of one slide, float16 (N, D)."""
        if slide_id not in self.slide_ids:
            raise InputError(f"{self.path} has no features of slide {slide_id!r}.")
        try:
            half, _ = to_half(self._set.features(slide_id), self._set.where(slide_id))
        except ExternalFileError as error:
            raise InputError(str(error)) from error
        return half

    def coordinates(self, slide_id: str) -> NDArray[np.int64] | None:
        """Places of a slide's tiles (N, 2), or None where the file gives none in pixels."""
        return self._set.bag(slide_id).coords

    def embedded_cohort(self, group: str | None = None) -> Cohort | None:
        """The labels in the file (ACMIL family), or None."""
        labels = self._set.labels()
        columns = [labels.get(slide_id, "") for slide_id in self.slide_ids] if labels else None
        return cohort_of_columns(self.path, self.slide_ids, columns, None, None, group)


def _reopened(path: Path) -> ForeignBags:
    return ForeignBags(open_feature_set(path))
