"""Exact area averaging over sub-pixel boxes: the antialiased resample between read level and tile."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import sparse

__all__ = ["area_resample"]


def area_resample(
    region: NDArray[np.uint8], left: float, top: float, scale: tuple[float, float], size_px: int
) -> NDArray[np.uint8]:
    """Averages the pixels of a region over the cells of a square grid.

    Every output pixel is the mean of the area that it covers, partly covered source pixels weighted by
    their share: the box filter at any sub-pixel offset and ratio. For a scale below one (upsampling) this
    is nearest neighbour with antialiased cell borders.

    Args:
        region: uint8 (h, w, 3).
        left: Offset of the first cell's left edge in region pixels, at least 0.
        top: Offset of its top edge.
        scale: Region pixels per output pixel along x and y.
        size_px: Edge of the output.

    Returns:
        uint8 (size_px, size_px, 3), rounded to nearest.
    """
    height, width = region.shape[:2]
    whole_x, whole_y = round(scale[0]), round(scale[1])
    untouched = left == top == 0.0 and scale[0] == whole_x and scale[1] == whole_y
    if untouched and (width, height) == (size_px * whole_x, size_px * whole_y):
        # The same mean in Pillow's integer arithmetic, several times faster.
        return np.asarray(Image.fromarray(region).reduce((whole_x, whole_y)))
    rows = _weights(round(top, 6), round(scale[1], 9), size_px, height)
    columns = _weights(round(left, 6), round(scale[0], 9), size_px, width)
    down = rows @ region.reshape(height, width * 3).astype(np.float32)
    turned = down.reshape(size_px, width, 3).transpose(1, 0, 2).reshape(width, size_px * 3)
    both = columns @ turned
    both += 0.5
    np.clip(both, 0.0, 255.0, out=both)
    return np.ascontiguousarray(both.reshape(size_px, size_px, 3).transpose(1, 0, 2).astype(np.uint8))


@functools.lru_cache(maxsize=4096)
def _weights(offset: float, scale: float, cells: int, length: int) -> Any:
    """Sparse (cells, length) matrix of the share of each source pixel in each cell; rows sum to one."""
    edges = offset + np.arange(cells + 1) * scale
    taps = math.ceil(scale) + 1
    index = np.floor(edges[:-1]).astype(np.int64)[:, None] + np.arange(taps)
    share = np.minimum(edges[1:, None], index + 1) - np.maximum(edges[:-1, None], index)
    share = np.clip(share, 0.0, None) / scale
    # A pixel beyond the region (rounding, or a level shorter than level 0 by a fraction) repeats the last.
    index = np.clip(index, 0, length - 1)
    row = np.repeat(np.arange(cells), taps)
    matrix = sparse.csr_matrix(
        (share.ravel().astype(np.float32), (row, index.ravel())), shape=(cells, length)
    )
    matrix.eliminate_zeros()
    return matrix
