"""Several encoders' embeddings of the same tiles, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.cohorts.cohort import Cohort
from wsi_ncmi.cohorts.sources import BagSource
from wsi_ncmi.core.errors import InputError

__all__ = ["JoinedBags"]

# Where these differ, the tiles show other tissue: their rows don't belong together.
_TILING = ("mpp_target", "tile_px", "overlap_px")


class JoinedBags:
    """Bag source whose tiles have the embeddings of several sources one after the other; see ``BagSource``.

    The slides are those that all sources have. A slide's tiles must be the same in all of them: the same
    number, and the same places in the same order wherever two sources know places (checked when a slide is
    first loaded).

    Args:
        sources: At least one, in the order of their columns.

    Raises:
        InputError: No slide in common, sources of different tiles, or a slide of different tile counts.
    """

    def __init__(self, sources: Sequence[BagSource]) -> None:
        self.parts = tuple(sources)
        first = self.parts[0]
        self.path: Path = first.path
        self.width = sum(part.width for part in self.parts)
        self.encoder = " + ".join(part.encoder or "?" for part in self.parts)
        self.fingerprints: dict[str, str] = dict(getattr(first, "fingerprints", {}))
        shared = set(first.slide_ids).intersection(*(part.slide_ids for part in self.parts[1:]))
        self.slide_ids = tuple(slide_id for slide_id in first.slide_ids if slide_id in shared)
        if not self.slide_ids:
            raise InputError(
                f"The features {_names(self.parts)} have no slide in common; are they of one cohort?"
            )
        for part in self.parts[1:]:
            _check_tiling(first, part)
        self.lengths = self._checked_lengths()
        self._compared: set[str] = set()

    def __reduce__(self) -> tuple[type[JoinedBags], tuple[Sequence[BagSource]]]:
        return JoinedBags, (self.parts,)

    def load(self, slide_id: str) -> NDArray[np.float16]:
        """Embeddings of one slide, float16 (N, ΣD)."""
        if slide_id not in self._compared:
            self.coordinates(slide_id)
            self._compared.add(slide_id)
        return np.concatenate([part.load(slide_id) for part in self.parts], axis=1)

    def coordinates(self, slide_id: str) -> NDArray[np.int64] | None:
        """Places of a slide's tiles (N, 2), or None where no source knows them.

        Raises:
            InputError: Two sources have different places.
        """
        known = [(part, part.coordinates(slide_id)) for part in self.parts]
        placed = [(part, places) for part, places in known if places is not None]
        for part, places in placed[1:]:
            if not np.array_equal(places, placed[0][1]):
                raise InputError(
                    f"The tiles of slide {slide_id!r} lie elsewhere in {part.path} than in "
                    f"{placed[0][0].path}; extract with all encoders from the same tissue masks and grid."
                )
        return placed[0][1] if placed else None

    def embedded_cohort(self, group: str | None = None) -> Cohort | None:
        """The labels of the first source that carries any, or None."""
        for part in self.parts:
            if (cohort := part.embedded_cohort(group)) is not None:
                return cohort
        return None

    def _checked_lengths(self) -> NDArray[np.int64]:
        found: list[list[int]] = []
        for part in self.parts:
            tiles = dict(zip(part.slide_ids, part.lengths.tolist(), strict=True))
            found.append([tiles[slide_id] for slide_id in self.slide_ids])
        for part, counts in zip(self.parts[1:], found[1:], strict=True):
            for slide_id, wanted, got in zip(self.slide_ids, found[0], counts, strict=True):
                if wanted != got:
                    raise InputError(
                        f"Slide {slide_id!r} has {wanted} tiles in {self.parts[0].path} but {got} in "
                        f"{part.path}; extract with all encoders from the same tissue masks and grid."
                    )
        return np.array(found[0], dtype=np.int64)


def _check_tiling(first: BagSource, other: BagSource) -> None:
    a: dict[str, Any] = getattr(first, "identity", {})
    b: dict[str, Any] = getattr(other, "identity", {})
    for key in _TILING:
        if a.get(key) is not None and b.get(key) is not None and a[key] != b[key]:
            raise InputError(
                f"{key} is {a[key]} in {first.path} but {b[key]} in {other.path}: encoders can be joined "
                "only on the same tiles."
            )


def _names(parts: Sequence[BagSource]) -> str:
    return " and ".join(str(part.path) for part in parts)
