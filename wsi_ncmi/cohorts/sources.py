"""Where bags come from: one interface over packed files and folders, ours and those of others."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.cohorts.cohort import Cohort
from wsi_ncmi.core.errors import InputError

__all__ = ["BagSource", "empty_bags", "open_bag_source"]


@runtime_checkable
class BagSource(Protocol):
    """Read-only access to the tile embeddings of a cohort.

    Attributes:
        path: What was opened (the first where several are joined). A source can be pickled: another process
            opens the same files itself, no features travel along.
        slide_ids: Ids in a fixed order.
        width: Embedding dimensions D.
        lengths: int64 (slides,), tiles of each slide in the order of ``slide_ids``; 0 is possible.
        encoder: Full name of the encoder, ``""`` where the source doesn't say.
    """

    path: Path
    slide_ids: tuple[str, ...]
    width: int
    lengths: NDArray[np.int64]
    encoder: str

    def load(self, slide_id: str) -> NDArray[np.float16]:
        """Embeddings of one slide, float16 (N, D).

        Raises:
            InputError: Unknown slide, or the bag holds NaN or infinity.
        """

    def coordinates(self, slide_id: str) -> NDArray[np.int64] | None:
        """Level-0 pixel (x, y) of the tiles' top-left corners (N, 2), or None where they aren't known."""

    def embedded_cohort(self, group: str | None = None) -> Cohort | None:
        """The labels the source itself carries, or None; ``group="slide_id"``: each slide is a patient."""


def open_bag_source(path: Path) -> BagSource:
    """Opens FEATURES.

    Args:
        path: A packed ``.npz``; a folder of ours: ``OUT``, ``OUT/features`` or ``OUT/features/<encoder>``; a
            folder of CLAM, TRIDENT or STAMP; a cohort ``.h5`` of the ACMIL family.

    Returns:
        The source.

    Raises:
        InputError: Nothing there, an unknown kind, several encoders to choose from, or faulty content.
    """
    # Imported here: the kinds build on this module's protocol.
    from wsi_ncmi.cohorts.foreign import ForeignBags
    from wsi_ncmi.features.interchange.detection import kind_of_folder, open_feature_set, resolve_folder

    path = Path(path)
    if path.is_file() and path.suffix == ".npz":
        from wsi_ncmi.cohorts.packed import PackedBags

        return PackedBags(path)
    if path.is_dir() and kind_of_folder(resolve_folder(path)) == "wsi-ncmi":
        from wsi_ncmi.cohorts.folder import FeatureFolder

        return FeatureFolder(path)
    return ForeignBags(open_feature_set(path))


def empty_bags(source: BagSource) -> tuple[str, ...]:
    """Slides of the source without a single tile: reported, never trained on."""
    return tuple(s for s, n in zip(source.slide_ids, source.lengths, strict=True) if n == 0)


def checked_bag(bag: NDArray[np.generic], slide_id: str, path: Path) -> NDArray[np.float16]:
    """Gives the bag as float16 after making sure that every number in it is finite."""
    from wsi_ncmi.features.hdf5_io import is_finite

    with np.errstate(over="ignore"):
        half = bag.astype(np.float16, copy=False)
    if not is_finite(half):
        raise InputError(
            f"The features of slide {slide_id!r} in {path} hold NaN, infinity or numbers beyond float16; "
            "extract the slide again."
        )
    return half
