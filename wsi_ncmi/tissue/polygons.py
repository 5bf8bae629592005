"""Masks as polygons that follow the pixel borders exactly."""

from __future__ import annotations

import numpy as np
import shapely

from wsi_ncmi.tissue.mask import TissueMask

__all__ = ["mask_polygons"]


def mask_polygons(mask: TissueMask) -> list[shapely.Polygon]:
    """Outlines of the tissue in level-0 pixels, holes included; their area is that of the mask.

    Args:
        mask: A tissue mask.

    Returns:
        One polygon a connected piece (pixels that touch only at a corner are apart), largest first.
    """
    if not mask.mask.any():
        return []
    padded = np.pad(mask.mask, ((0, 0), (1, 1))).astype(np.int8)
    edges = np.diff(padded, axis=1)
    rows, starts = np.nonzero(edges == 1)
    _, ends = np.nonzero(edges == -1)
    dx, dy = mask.downsample_x, mask.downsample_y
    runs = shapely.box(starts * dx, rows * dy, ends * dx, (rows + 1) * dy)
    union = shapely.union_all(runs)
    pieces = shapely.get_parts(shapely.simplify(union, 0.0))
    polygons = [piece for piece in pieces if isinstance(piece, shapely.Polygon)]
    return sorted(polygons, key=lambda piece: (-piece.area, piece.bounds))
