"""Which tiles of a grid hold enough tissue."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.tiling.grid import TileGrid
from wsi_ncmi.tissue import TissueMask

__all__ = ["TileSelection", "select_tiles"]


@dataclass(frozen=True)
class TileSelection:
    """The tiles to read, in raster order.

    Attributes:
        indices: Positions in the grid, int64 (N,), ascending.
        coords: Rounded level-0 corners, int64 (N, 2).
        tissue_fraction: Share of each tile that is tissue, float16 (N,).
    """

    indices: NDArray[np.int64]
    coords: NDArray[np.int64]
    tissue_fraction: NDArray[np.float16]

    def __len__(self) -> int:
        return len(self.indices)


def select_tiles(grid: TileGrid, mask: TissueMask, min_tissue: float) -> TileSelection:
    """Selects the tiles whose tissue share is at least ``min_tissue`` (and above zero).

    Args:
        grid: The grid.
        mask: Tissue of the same slide.
        min_tissue: Least share, 0 to 1.
    """
    fraction = mask.fraction_in(grid.boxes()) if len(grid) else np.empty(0)
    # float16 would round a share just below the limit up to it: compare before storing.
    chosen = np.flatnonzero((fraction >= min_tissue) & (fraction > 0)).astype(np.int64)
    return TileSelection(chosen, grid.coords(chosen), fraction[chosen].astype(np.float16))
