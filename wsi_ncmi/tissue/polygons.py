"""Masks as polygons that follow the pixel borders exactly."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

from wsi_ncmi.tissue.mask import TissueMask
from wsi_ncmi.tissue.runs import runs_of

__all__ = ["mask_polygons", "outline"]


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

    Args:
        mask: bool (H, W).
        dx: Level-0 pixels per mask pixel along x.
        dy: The same along y.
    """
    runs = runs_of(mask)
    boxes = shapely.box(runs.starts * dx, runs.rows * dy, runs.ends * dx, (runs.rows + 1) * dy)
    union = shapely.union_all(boxes)
    pieces = shapely.get_parts(shapely.simplify(union, 0.0))
    polygons = [piece for piece in pieces if isinstance(piece, shapely.Polygon) and not piece.is_empty]
    return sorted(polygons, key=lambda piece: (-piece.area, piece.bounds))
