"""Where a slide's pen marks, folds and borders are, and how much of a box they cover."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.tissue.areas import integral, shares_under
from wsi_ncmi.tissue.artifact_config import ARTIFACT_KINDS

if TYPE_CHECKING:
    import shapely

__all__ = ["ArtifactMap"]


@dataclass(frozen=True, eq=False)  # arrays have no one truth value to compare by
class ArtifactMap:
    """Artefacts seen on the slide in small; blur is seen on the tiles themselves.

    Attributes:
        bits: uint8 (H, W); bit k is set where kind k is, for folds in at least half of the pixel.
        downsample_x: Level-0 pixels per map pixel along x.
        downsample_y: The same along y.
        fold_shares: uint8 (H, W), how much of each pixel is under a fold, in steps of ``1 / fold_steps``;
            None where no more is known than ``bits``.
        fold_steps: Steps in a whole pixel.
    """

    bits: NDArray[np.uint8]
    downsample_x: float
    downsample_y: float
    fold_shares: NDArray[np.uint8] | None = None
    fold_steps: int = 1

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of this map, in the order of the scores."""
        return ARTIFACT_KINDS[:3]

    def where(self, kind: str) -> NDArray[np.bool_]:
        """Where an artefact is.

        Args:
            kind: One of :attr:`kinds`.

        Returns:
            bool (H, W).
        """
        found: NDArray[np.bool_] = (self.bits & np.uint8(1 << self.kinds.index(kind))) != 0
        return found

    def scores_in(self, boxes: NDArray[np.float64]) -> NDArray[np.float32]:
        """Share of each box under each kind of artefact, exact for boxes at any sub-pixel position.

        Args:
            boxes: float64 (N, 4) left, top, right, bottom in level-0 pixels; parts outside the slide have
                no artefact.

        Returns:
            float32 (N, 3) in the order of :attr:`kinds`.
        """
        scores = np.zeros((len(boxes), len(self.kinds)), np.float32)
        for column, kind in enumerate(self.kinds):
            finer = self.fold_shares if kind == "fold" else None
            found = self.where(kind) if finer is None else finer
            if found.any():
                steps = 1 if finer is None else self.fold_steps
                table = integral(found)
                scores[:, column] = shares_under(table, self.downsample_x, self.downsample_y, boxes, steps)
        return scores

    def polygons(self) -> dict[str, list[shapely.Polygon]]:
        """Outlines in level-0 pixels per kind; kinds that were not found are left out."""
        from wsi_ncmi.tissue.polygons import outline

        found = {kind: outline(self.where(kind), self.downsample_x, self.downsample_y) for kind in self.kinds}
        return {kind: polygons for kind, polygons in found.items() if polygons}
