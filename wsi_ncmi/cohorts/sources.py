"""Where bags come from: one interface over a packed ``.npz`` and a folder of feature files."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.cohorts.cohort import Cohort
from wsi_ncmi.errors import InputError

__all__ = ["BagSource", "empty_bags", "open_bag_source"]


@runtime_checkable
class BagSource(Protocol):
    """Read-only access to the tile embeddings of a cohort.

    Attributes:
        path: What was opened; another process opens the same with ``open_bag_source(source.path)``.
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

    def embedded_cohort(self, group: str | None = None) -> Cohort | None:
        """The labels the source itself carries, or None; ``group="slide_id"``: each slide is a patient."""


def open_bag_source(path: Path) -> BagSource:
    """Opens FEATURES.

    Args:
        path: A packed ``.npz``, or a folder: ``OUT``, ``OUT/features`` or ``OUT/features/<encoder>``.

    Returns:
        The source.

    Raises:
        InputError: Nothing there, an unknown kind, several encoders to choose from, or faulty content.
    """
    # Imported here: the two kinds build on this module's protocol, and h5py isn't needed for an npz.
    path = Path(path)
    if path.is_file() and path.suffix == ".npz":
        from wsi_ncmi.cohorts.packed import PackedBags

        return PackedBags(path)
    if path.is_dir():
        from wsi_ncmi.cohorts.folder import FeatureFolder

        return FeatureFolder(path)
    if not path.exists():
        raise InputError(f"The features {path} don't exist; give a features folder or a packed .npz file.")
    raise InputError(f"{path} is neither a folder of feature files nor a packed .npz file.")


def empty_bags(source: BagSource) -> tuple[str, ...]:
    """Slides of the source without a single tile: reported, never trained on."""
    return tuple(s for s, n in zip(source.slide_ids, source.lengths, strict=True) if n == 0)


def checked_bag(bag: NDArray[np.generic], slide_id: str, path: Path) -> NDArray[np.float16]:
    """Gives the bag as float16 after making sure that every number in it is finite."""
    with np.errstate(over="ignore"):
        half = bag.astype(np.float16, copy=False)
    if not np.isfinite(half).all():
        raise InputError(
            f"The features of slide {slide_id!r} in {path} hold NaN, infinity or numbers beyond float16; "
            "extract the slide again."
        )
    return half
