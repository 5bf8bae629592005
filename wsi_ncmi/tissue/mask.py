"""The tissue mask and exact area fractions of boxes on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.slides import Mpp
from wsi_ncmi.tissue.areas import integral, shares_under

__all__ = ["TissueMask"]


@dataclass(frozen=True, eq=False)  # arrays have no one truth value to compare by
class TissueMask:
    """Where the tissue of a slide is.

    Attributes:
        mask: bool (H, W).
        downsample_x: Level-0 pixels per mask pixel along x.
        downsample_y: The same along y.
        method: How it was made.
        parameters: JSON-ready settings and what was found (threshold in use, whether it was loosened).
        note: One sentence for the ledger, or empty.
    """

    mask: NDArray[np.bool_]
    downsample_x: float
    downsample_y: float
    method: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""

    def area_mm2(self, mpp: Mpp) -> float:
        """Area of the tissue in mm²."""
        pixel_um2 = self.downsample_x * mpp.x * self.downsample_y * mpp.y
        return float(np.count_nonzero(self.mask) * pixel_um2 * 1e-6)

    def fraction_in(self, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Share of each box that is tissue, exact for boxes at any sub-pixel position.

        Args:
            boxes: float64 (N, 4) left, top, right, bottom in level-0 pixels; parts outside the mask are no
                tissue.

        Returns:
            float64 (N,), 0 to 1.
        """
        return shares_under(self._integral, self.downsample_x, self.downsample_y, boxes)

    @cached_property
    def _integral(self) -> NDArray[np.int32]:
        return integral(self.mask)
