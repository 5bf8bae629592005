"""Reading the selected tiles at the exact target resolution."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.errors import SlideReadError
from wsi_ncmi.slides import Slide
from wsi_ncmi.tiling.area import area_resample
from wsi_ncmi.tiling.grid import TileGrid
from wsi_ncmi.tiling.selection import TileSelection

__all__ = ["TileBatch", "read_tile", "read_tiles"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class TileBatch:
    """Some tiles of a selection.

    Attributes:
        rows: Their positions in the selection, int64 (n,).
        pixels: uint8 (n, tile_px, tile_px, 3), RGB; zeros where ``failed``.
        failed: bool (n,): the read failed; these pixels are no tissue and must not be embedded.
    """

    rows: NDArray[np.int64]
    pixels: NDArray[np.uint8]
    failed: NDArray[np.bool_]


def read_tiles(
    slide: Slide, grid: TileGrid, selection: TileSelection, batch_size: int
) -> Iterator[TileBatch]:
    """Reads the selected tiles in raster order.

    Args:
        slide: The slide the grid was planned for.
        grid: Its grid.
        selection: Tiles to read.
        batch_size: Tiles in a batch; the last one may hold fewer.

    Yields:
        Batches that together hold every tile of the selection once.
    """
    boxes = grid.boxes(selection.indices)
    size = grid.tile_px
    for start in range(0, len(selection), batch_size):
        rows = np.arange(start, min(start + batch_size, len(selection)), dtype=np.int64)
        pixels = np.zeros((len(rows), size, size, 3), np.uint8)
        failed = np.zeros(len(rows), np.bool_)
        for place, row in enumerate(rows):
            try:
                pixels[place] = read_tile(slide, grid, boxes[row])
            except SlideReadError as error:
                failed[place] = True
                _LOG.warning("%s", error)
        yield TileBatch(rows, pixels, failed)


def read_tile(slide: Slide, grid: TileGrid, box: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Reads one source box as a tile.

    Args:
        slide: The slide.
        grid: Its grid.
        box: Left, top, right, bottom in level-0 pixels (a row of ``grid.boxes``).

    Returns:
        uint8 (tile_px, tile_px, 3).

    Raises:
        SlideReadError: The region can't be read.
    """
    level, (scale_x, scale_y) = grid.level, grid.reduction
    x, left, width = _span(box[0], box[2], level.downsample_x, level.width_px)
    y, top, height = _span(box[1], box[3], level.downsample_y, level.height_px)
    if (scale_x, scale_y) == (1.0, 1.0):
        # As they are: at scale 1 a sub-pixel offset would only blur, so the nearest whole pixel is read.
        x, y = round(box[0] / level.downsample_x), round(box[1] / level.downsample_y)
        corner = round(x * level.downsample_x), round(y * level.downsample_y)
        return slide.read_region(*corner, grid.read_level, grid.tile_px, grid.tile_px)
    region = slide.read_region(x, y, grid.read_level, width, height)
    return area_resample(region, left, top, (scale_x, scale_y), grid.tile_px)


def _span(low: float, high: float, downsample: float, length: int) -> tuple[int, float, int]:
    """Level-0 start, offset of the box in read-level pixels from there, and read-level pixels to read."""
    first = math.floor(low / downsample + 1e-9)
    # OpenSlide takes the corner in level-0 pixels and divides by the level's downsample: do the same.
    start = math.floor(first * downsample + 1e-9)
    offset = max(0.0, low / downsample - start / downsample)
    end = math.ceil(high / downsample - start / downsample - 1e-6)
    return start, offset, max(1, min(end, length - first))
