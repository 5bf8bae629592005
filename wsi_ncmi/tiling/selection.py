"""Which tiles of a grid hold enough tissue."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.tiling.grid import TileGrid
from wsi_ncmi.tissue import TissueMask

__all__ = ["TileSelection", "select_tiles"]

_BOXES = 1 << 18
# Shares are differences of large sums: this much of them is noise, which makes no tissue and excludes none.
_ROUNDING = 1e-7


@dataclass(frozen=True, eq=False)  # arrays have no one truth value to compare by
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
    chosen, shares = [np.empty(0, np.int64)], [np.empty(0)]
    # Small tiles on a large slide make tens of millions of boxes: a part of them at a time.
    for start in range(0, len(grid), _BOXES):
        indices = np.arange(start, min(start + _BOXES, len(grid)), dtype=np.int64)
        share = mask.fraction_in(grid.boxes(indices))
        # float16 would round a share just below the limit up to it: compare before storing.
        enough = (share >= min_tissue - _ROUNDING) & (share > _ROUNDING)
        chosen.append(indices[enough])
        shares.append(share[enough])
    found = np.concatenate(chosen)
    return TileSelection(found, grid.coords(found), np.concatenate(shares).astype(np.float16))
