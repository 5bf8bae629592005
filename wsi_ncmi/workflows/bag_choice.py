"""What a bag is: the tiles of a slide or of a patient, with the embeddings of one encoder or of several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wsi_ncmi.cohorts import BagSource, JoinedBags, open_bag_source

__all__ = ["open_features"]


def open_features(features: Path, further: Sequence[Path] = ()) -> BagSource:
    """Opens features, joined tile by tile with those of further encoders.

    Args:
        features: As ``open_bag_source`` takes them.
        further: Features of the same tiles by other encoders, in the order of their columns.

    Raises:
        InputError: As ``open_bag_source``, or the tiles aren't the same.
    """
    first = open_bag_source(features)
    return JoinedBags([first, *map(open_bag_source, further)]) if further else first
