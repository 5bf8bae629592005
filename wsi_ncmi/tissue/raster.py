"""Polygons to masks: a pixel is inside where its middle is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray

__all__ = ["raster"]


def raster(
    polygons: Sequence[shapely.Polygon], shape: tuple[int, ...], downsample_x: float, downsample_y: float
) -> NDArray[np.bool_]:
    """Which pixels have their middle inside any of the polygons.

    Every outline's crossings with the middles of the rows flip what follows in the row (even-odd rule), all
    at once and without a loop over pixels.

    Args:
        polygons: Valid polygons in level-0 pixels; they may overlap.
        shape: Rows and columns of the mask.
        downsample_x: Level-0 pixels per mask pixel along x.
        downsample_y: The same along y.

    Returns:
        bool, of that shape.
    """
    height, width = shape
    flips = np.zeros((height, width + 1), np.uint8)
    # One flip an outline is right only where outlines don't overlap.
    pieces = shapely.get_parts(shapely.union_all(list(polygons)))
    rings = shapely.get_rings([piece for piece in pieces if isinstance(piece, shapely.Polygon)])
    if not len(rings):
        return flips[:, :width].astype(bool)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    x, y = points[:, 0] / downsample_x - 0.5, points[:, 1] / downsample_y - 0.5
    same = ring[1:] == ring[:-1]
    x0, y0, x1, y1 = x[:-1][same], y[:-1][same], x[1:][same], y[1:][same]
    low, high = np.minimum(y0, y1), np.maximum(y0, y1)
    # Rows whose middle lies in [low, high): each end of an edge belongs to one of the two edges at it.
    first = np.clip(np.ceil(low), 0, height).astype(np.int64)
    last = np.clip(np.ceil(high), 0, height).astype(np.int64)
    count = last - first
    edge = np.repeat(np.arange(len(count)), count)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    cross = x0[edge] + (row - y0[edge]) * ((x1[edge] - x0[edge]) / (y1[edge] - y0[edge]))
    column = np.clip(np.ceil(cross), 0, width).astype(np.int64)
    np.add.at(flips, (row, column), 1)
    flips &= 1
    np.bitwise_xor.accumulate(flips, axis=1, out=flips)
    return flips[:, :width].astype(bool)
