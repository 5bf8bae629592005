"""Bags of other tools' feature files, and the opening of any features."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.cohorts.bags import BagSource, FeatureFolder, PackedBags
from wsi_ncmi.cohorts.cohort import Cohort, cohort_of_columns
from wsi_ncmi.core.errors import InputError, counted
from wsi_ncmi.features.interchange.bag import ExternalFileError, to_half
from wsi_ncmi.features.interchange.base import FeatureSet, survey
from wsi_ncmi.features.interchange.detection import open_feature_set

_SHOWN = 5


class ExternalBags:
    """Bag source over the files of another tool; see ``BagSource``. Nothing is copied or converted on disk.

    Args:
        features: The opened files.

    Raises:
        InputError: A file can't be used, or files are of different encoders or tile grids.
    """

    def __init__(self, features: FeatureSet) -> None:
        self._set = features
        self.path = features.path
        self.slide_ids = features.slide_ids
        self.encoder = features.encoder()
        self.level = features.level
        shapes, unusable = survey(features)
        if unusable:
            shown = " ".join(unusable[:_SHOWN]) + (" …" if len(unusable) > _SHOWN else "")
            raise InputError(
                f"{counted(len(unusable), 'feature file')} in {self.path} can't be used: {shown}"
            )
        self.width = next((width for _, width in shapes.values() if width), 0)
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


def _reopened(path: Path) -> ExternalBags:
    return ExternalBags(open_feature_set(path))


def open_bag_source(path: Path) -> BagSource:
    """Opens FEATURES.

    Args:
        path: A packed ``.npz``; a folder of ours: ``OUT``, ``OUT/features`` or ``OUT/features/<encoder>``; a
            folder of CLAM, TRIDENT or STAMP, of tiles or of vectors of slides or patients; a cohort ``.h5``
            of the ACMIL family.

    Returns:
        The source.

    Raises:
        InputError: Nothing there, an unknown kind, several encoders to choose from, or faulty content.
    """
    from wsi_ncmi.features.interchange.detection import kind_of_folder, open_feature_set, resolve_folder

    path = Path(path)
    if path.is_file() and path.suffix == ".npz":
        return PackedBags(path)
    if path.is_dir() and kind_of_folder(resolve_folder(path)) == "wsi-ncmi":
        return FeatureFolder(path)
    return ExternalBags(open_feature_set(path))
