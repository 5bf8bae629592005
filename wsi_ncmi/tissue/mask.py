"""The tissue mask and exact area fractions of boxes on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.slides import Mpp

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

        The integral image is piecewise bilinear between pixel corners, so its value at a fractional corner
        is the exact area of the mask up to there.

        Args:
            boxes: float64 (N, 4) left, top, right, bottom in level-0 pixels; parts outside the mask are no
                tissue.

        Returns:
            float64 (N,), 0 to 1.
        """
        height, width = self.mask.shape
        left, right = (np.clip(boxes[:, i] / self.downsample_x, 0, width) for i in (0, 2))
        top, bottom = (np.clip(boxes[:, i] / self.downsample_y, 0, height) for i in (1, 3))
        covered = (
            self._area(right, bottom)
            - self._area(left, bottom)
            - self._area(right, top)
            + self._area(left, top)
        )
        size = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        share = covered * self.downsample_x * self.downsample_y / size
        return np.clip(share, 0.0, 1.0)

    @cached_property
    def _integral(self) -> NDArray[np.int64]:
        height, width = self.mask.shape
        table = np.zeros((height + 1, width + 1), np.int64)
        table[1:, 1:] = self.mask.cumsum(axis=0, dtype=np.int64).cumsum(axis=1)
        return table

    def _area(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        height, width = self.mask.shape
        column = np.minimum(x.astype(np.int64), width - 1)
        row = np.minimum(y.astype(np.int64), height - 1)
        fx, fy = x - column, y - row
        table = self._integral
        upper = table[row, column] * (1 - fx) + table[row, column + 1] * fx
        lower = table[row + 1, column] * (1 - fx) + table[row + 1, column + 1] * fx
        result: NDArray[np.float64] = upper * (1 - fy) + lower * fy
        return result
