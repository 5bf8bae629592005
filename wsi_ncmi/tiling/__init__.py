"""Exact tile grids over slides, the choice of tiles by tissue, and the reading of their pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_ncmi._lazy import attach
from wsi_ncmi.tiling.options import GridOptions

if TYPE_CHECKING:  # the names below are loaded lazily at run time
    from wsi_ncmi.tiling.batches import TileBatch as TileBatch
    from wsi_ncmi.tiling.grid import TileGrid as TileGrid
    from wsi_ncmi.tiling.reader import TileReader as TileReader
    from wsi_ncmi.tiling.reader import read_tile as read_tile
    from wsi_ncmi.tiling.reader import read_tiles as read_tiles
    from wsi_ncmi.tiling.regions import StoredRegions as StoredRegions
    from wsi_ncmi.tiling.selection import TileSelection as TileSelection
    from wsi_ncmi.tiling.selection import select_tiles as select_tiles

__all__ = [
    "GridOptions",
    "StoredRegions",
    "TileBatch",
    "TileGrid",
    "TileReader",
    "TileSelection",
    "read_tile",
    "read_tiles",
    "select_tiles",
]

__getattr__, __dir__ = attach(
    __name__,
    {
        "StoredRegions": "wsi_ncmi.tiling.regions",
        "TileBatch": "wsi_ncmi.tiling.batches",
        "TileGrid": "wsi_ncmi.tiling.grid",
        "TileReader": "wsi_ncmi.tiling.reader",
        "TileSelection": "wsi_ncmi.tiling.selection",
        "read_tile": "wsi_ncmi.tiling.reader",
        "read_tiles": "wsi_ncmi.tiling.reader",
        "select_tiles": "wsi_ncmi.tiling.selection",
    },
)
