"""The tissue mask, and exact area fractions of boxes on it at any sub-pixel position."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.slides import Mpp


def integral(mask: NDArray[np.bool_] | NDArray[np.uint8]) -> NDArray[np.int32]:
    """The integral image: entry (i, j) sums the mask's pixels above row i and left of column j.

    Args:
        mask: bool or uint8 (H, W) with a sum below 2³¹.

    Returns:
        int32 (H + 1, W + 1); half the bytes of int64, summed row by row in place.
    """
    height, width = mask.shape
    table = np.zeros((height + 1, width + 1), np.int32)
    for row in range(height):
        np.cumsum(mask[row], dtype=np.int32, out=table[row + 1, 1:])
        table[row + 1] += table[row]
    return table


def shares_under(
    table: NDArray[np.int32],
    downsample_x: float,
    downsample_y: float,
    boxes: NDArray[np.float64],
    steps: int = 1,
) -> NDArray[np.float64]:
    """Share of each box that the mask covers.

    The integral image is piecewise bilinear between pixel corners, so its value at a fractional corner
    is the exact area of the mask up to there.

    Args:
        table: The integral image of :func:`integral`.
        downsample_x: Level-0 pixels per mask pixel along x.
        downsample_y: The same along y.
        boxes: float64 (N, 4) left, top, right, bottom in level-0 pixels; parts outside the mask are empty.
        steps: Value of a pixel that is covered as a whole.

    Returns:
        float64 (N,), 0 to 1.
    """
    height, width = table.shape[0] - 1, table.shape[1] - 1
    left, right = (np.clip(boxes[:, i] / downsample_x, 0, width) for i in (0, 2))
    top, bottom = (np.clip(boxes[:, i] / downsample_y, 0, height) for i in (1, 3))
    covered = (
        _area(table, right, bottom)
        - _area(table, left, bottom)
        - _area(table, right, top)
        + _area(table, left, top)
    )
    size = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    shares: NDArray[np.float64] = np.clip(covered * downsample_x * downsample_y / (size * steps), 0.0, 1.0)
    return shares


def _area(table: NDArray[np.int32], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    column = np.minimum(x.astype(np.int64), table.shape[1] - 2)
    row = np.minimum(y.astype(np.int64), table.shape[0] - 2)
    fx, fy = x - column, y - row
    upper = table[row, column] * (1 - fx) + table[row, column + 1] * fx
    lower = table[row + 1, column] * (1 - fx) + table[row + 1, column + 1] * fx
    result: NDArray[np.float64] = upper * (1 - fy) + lower * fy
    return result


@dataclass(frozen=True, eq=False)  # arrays have no one truth value to compare by
class TissueMask:
    """The tissue of a slide as a mask.

    Attributes:
        mask: bool (H, W).
        downsample_x: Level-0 pixels per mask pixel along x.
        downsample_y: The same along y.
        method: How it was made.
        parameters: JSON-ready settings and findings (threshold in use, and if it was loosened).
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
