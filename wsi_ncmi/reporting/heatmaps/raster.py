"""Tiles onto pixels, exactly: a pixel shows the mean of the tiles over it, by the area that each covers."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

__all__ = ["rasterise"]


def rasterise(
    boxes: NDArray[np.float64],
    values: NDArray[np.floating],
    window: tuple[float, float, float, float],
    shape: tuple[int, int],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Averages tile values over the pixels of a picture.

    A tile covers a pixel by the product of what it covers of its width and of its height; tiles that overlap
    are averaged. Numbers of pixels and tiles both may be large: the cost is that of the pixels that tiles
    cover.

    Args:
        boxes: float64 (N, 4) left, top, right, bottom in level-0 pixels.
        values: (N,).
        window: Left, top, right, bottom of the picture in level-0 pixels.
        shape: Its height and width in pixels.

    Returns:
        Mean value float32 (h, w), 0 where there is no tile, and covered share of each pixel float32 (h, w),
        0 to 1 (1 also where several tiles overlap).
    """
    height, width = shape
    left, top, right, bottom = window
    empty = np.zeros(shape, np.float32)
    inside = (boxes[:, 2] > left) & (boxes[:, 0] < right) & (boxes[:, 3] > top) & (boxes[:, 1] < bottom)
    if not inside.any():
        return empty, empty.copy()
    chosen = boxes[inside]
    across = _shares((chosen[:, [0, 2]] - left) * (width / (right - left)), width)
    down = _shares((chosen[:, [1, 3]] - top) * (height / (bottom - top)), height)
    weight = np.asarray((down.T @ across).todense(), np.float64)
    numbers = sparse.diags_array(np.asarray(values, np.float64)[inside])
    total = np.asarray((down.T @ numbers @ across).todense(), np.float64)
    # Below a millionth of a pixel it is rounding, not a tile.
    covered = weight > 1e-6
    mean = np.divide(total, weight, out=np.zeros_like(total), where=covered)
    return mean.astype(np.float32), np.minimum(np.where(covered, weight, 0), 1).astype(np.float32)


def _shares(edges: NDArray[np.float64], length: int) -> sparse.csr_array:
    """What of each pixel the interval of each tile covers: sparse (N, length) from edges (N, 2) in pixels."""
    low, high = np.clip(edges[:, :1], 0, length), np.clip(edges[:, 1:], 0, length)
    first = np.floor(low).astype(np.int64)
    taps = max(1, math.ceil(float((high - first).max())))
    index = first + np.arange(taps)
    share = np.minimum(high, index + 1) - np.maximum(low, index)
    used = (share > 0) & (index < length)
    rows = np.broadcast_to(np.arange(len(edges))[:, None], index.shape)
    return sparse.csr_array((share[used], (rows[used], index[used])), shape=(len(edges), length))
