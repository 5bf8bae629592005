"""Tissue masks, their outlines as polygons that follow the pixel borders exactly, and polygons as masks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import shapely
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


def mask_polygons(mask: TissueMask) -> list[shapely.Polygon]:
    """Outlines of the tissue in level-0 pixels, holes included; their area is that of the mask.

    Args:
        mask: A tissue mask.

    Returns:
        One polygon a connected piece (pixels that touch only at a corner are apart), largest first.
    """
    return outline(mask.mask, mask.downsample_x, mask.downsample_y)


def outline(mask: NDArray[np.bool_], dx: float, dy: float) -> list[shapely.Polygon]:
    """Outlines of any mask, as :func:`mask_polygons` gives them.

    The borders between set and unset pixels divide the plane into faces; those of set pixels are the pieces.
    Joining the boxes of all runs gives the same and takes three to ten times as long.

    Args:
        mask: bool (H, W).
        dx: Level-0 pixels per mask pixel along x.
        dy: The same along y.
    """
    if not mask.any():
        return []
    faces = shapely.get_parts(shapely.polygonize(shapely.linestrings(_borders(mask))))
    pieces = faces[_is_set(faces, mask)]
    shapely.set_coordinates(pieces, shapely.get_coordinates(pieces) * (dx, dy))
    bounds, areas = shapely.bounds(pieces), shapely.area(pieces)
    order = np.lexsort((*bounds.T[::-1], -areas))
    largest_first: list[shapely.Polygon] = pieces[order].tolist()
    return largest_first


def _borders(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Straight pieces of border from corner to corner in mask pixels: (n, 2, 2), two points x, y each.

    They meet at their ends alone, also where two pixels touch only at a corner.
    """
    padded = np.pad(mask, 1)
    across = padded[1:, 1:-1] != padded[:-1, 1:-1]  # (H + 1, W), borders that run along x
    along = padded[1:-1, 1:] != padded[1:-1, :-1]  # (H, W + 1), borders that run along y
    right, left = np.pad(across, ((0, 0), (0, 1))), np.pad(across, ((0, 0), (1, 0)))
    below, above = np.pad(along, ((0, 1), (0, 0))), np.pad(along, ((1, 0), (0, 0)))
    corner = (right | left) & (below | above)
    # Read along a row (or column), begins and ends of pieces take turns, so the n-th of each belong together.
    y0, x0 = np.nonzero(corner & right)
    _, x1 = np.nonzero(corner & left)
    u0, v0 = np.nonzero((corner & below).T)
    _, v1 = np.nonzero((corner & above).T)
    begin = np.concatenate((np.stack((x0, y0), axis=1), np.stack((u0, v0), axis=1)))
    end = np.concatenate((np.stack((x1, y0), axis=1), np.stack((u0, v1), axis=1)))
    return np.stack((begin, end), axis=1).astype(np.float64)


def _is_set(faces: NDArray[np.object_], mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """True if faces are of set pixels: the pixel at a face's first corner in raster order is its own."""
    corners, of_face = shapely.get_coordinates(shapely.get_exterior_ring(faces), return_index=True)
    x, y = corners.astype(np.int64).T
    order = np.lexsort((x, y, of_face))
    first = order[np.flatnonzero(np.diff(of_face[order], prepend=-1))]
    found: NDArray[np.bool_] = mask[y[first], x[first]]
    return found


def raster(
    polygons: Sequence[shapely.Polygon], shape: tuple[int, ...], downsample_x: float, downsample_y: float
) -> NDArray[np.bool_]:
    """Mask of the pixels that have their middle inside any of the polygons.

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
