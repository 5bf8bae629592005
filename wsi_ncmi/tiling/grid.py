"""The tile grid, the one place where pixels, microns and levels are converted; the tiles with tissue."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import SlideError, UpsampleError
from wsi_ncmi.slides import Level, Mpp
from wsi_ncmi.slides.base import MAX_REGION_PX
from wsi_ncmi.tiling.config import GridConfig
from wsi_ncmi.tissue import TissueMask

# A scale this near to a whole number of read-level pixels is taken as that number, so that pixels are read
# as they are: scanners state 0.25 as 0.2501, and the sides of levels are rounded to pixels. It is half of the
# 0.1 % by which a source box may be off. A target that is finer than a level by no more than this is that
# level's own resolution, nothing is enlarged; finer ones need the next finer level, or leave to upsample.
_WHOLE_TOLERANCE = 0.0005
# A box this near to a whole pixel is taken to be on it.
_NOISE_PX = 1e-6


@dataclass(frozen=True, repr=False)
class TileGrid:
    """A regular grid of tiles over one slide, in raster order, every tile wholly inside the slide.

    Attributes:
        width_px: Width of level 0 in pixels.
        height_px: Height of level 0 in pixels.
        mpp: Resolution of level 0.
        target_mpp: Resolution of the tiles, µm per pixel.
        tile_px: Edge of a tile at ``target_mpp``.
        overlap_px: Pixels at ``target_mpp`` shared by neighbours.
        read_level: Pyramid level that tiles are read from: the coarsest that is not coarser than the target.
        level: That level.
        scale_x: Level-0 pixels per tile pixel along x (a float; anisotropic slides have two).
        scale_y: The same along y.
        scaled_decoding: The decoder may reduce tiles itself (see ``GridConfig``).
    """

    width_px: int
    height_px: int
    mpp: Mpp
    target_mpp: float
    tile_px: int
    overlap_px: int
    read_level: int
    level: Level
    scale_x: float
    scale_y: float
    scaled_decoding: bool = False

    def __repr__(self) -> str:
        size = f"{self.tile_px} px at {self.target_mpp:g} µm per pixel"
        overlap = f", {self.overlap_px} px shared" if self.overlap_px else ""
        return f"<TileGrid {len(self)} tiles of {size}{overlap}, read from level {self.read_level}>"

    @classmethod
    def plan(cls, levels: Sequence[Level], mpp: Mpp, options: GridConfig) -> TileGrid:
        """Lays the grid over a slide.

        Args:
            levels: The slide's pyramid, finest first.
            mpp: Resolution of level 0.
            options: Target resolution, tile size and overlap.

        Raises:
            UpsampleError: The target is finer than level 0 and ``allow_upsample`` is off.
            SlideError: One tile covers more pixels of the read level than are read at once.
        """
        scale_x, scale_y = options.target_mpp / mpp.x, options.target_mpp / mpp.y
        if not _reaches(scale_x, scale_y, levels[0]) and not options.allow_upsample:
            raise UpsampleError(
                f"The slide has {mpp.x:g} × {mpp.y:g} µm per pixel, coarser than the target of "
                f"{options.target_mpp:g}; give --mpp {max(mpp.x, mpp.y):g} or more, or pass --allow-upsample."
            )
        index = max(
            (number for number, level in enumerate(levels) if _reaches(scale_x, scale_y, level)),
            key=lambda number: levels[number].downsample_x,
            default=0,
        )
        level = levels[index]
        _check_region(level, options, scale_x, scale_y)
        return cls(
            width_px=levels[0].width_px,
            height_px=levels[0].height_px,
            mpp=mpp,
            target_mpp=options.target_mpp,
            tile_px=options.edge_px,
            overlap_px=options.overlap_px,
            read_level=index,
            level=level,
            scale_x=_whole(scale_x, level.downsample_x),
            scale_y=_whole(scale_y, level.downsample_y),
            scaled_decoding=options.scaled_decoding,
        )

    @property
    def tile_size_level0(self) -> tuple[float, float]:
        """Width and height of a tile in level-0 pixels, exact floats."""
        return self.tile_px * self.scale_x, self.tile_px * self.scale_y

    @property
    def step_level0(self) -> tuple[float, float]:
        """Distance between neighbouring tiles in level-0 pixels."""
        stride = self.tile_px - self.overlap_px
        return stride * self.scale_x, stride * self.scale_y

    @property
    def n_columns(self) -> int:
        """Tiles in a row of the grid."""
        return _count(self.width_px, self.tile_size_level0[0], self.step_level0[0])

    @property
    def n_rows(self) -> int:
        """Rows of the grid."""
        return _count(self.height_px, self.tile_size_level0[1], self.step_level0[1])

    def __len__(self) -> int:
        return self.n_columns * self.n_rows

    def boxes(self, indices: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """Source boxes in level-0 pixels.

        Args:
            indices: Positions in raster order, int64 (N,); None = all.

        Returns:
            float64 (N, 4): left, top, right, bottom.
        """
        index = np.arange(len(self), dtype=np.int64) if indices is None else indices
        rows, columns = np.divmod(index, max(self.n_columns, 1))
        left, top = columns * self.step_level0[0], rows * self.step_level0[1]
        width, height = self.tile_size_level0
        return np.stack((left, top, left + width, top + height), axis=1)

    def coords(self, indices: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """Top-left corners rounded to level-0 pixels: int64 (N, 2), x then y (``/coords`` of the file)."""
        return np.rint(self.boxes(indices)[:, :2]).astype(np.int64)

    @property
    def reduction(self) -> tuple[float, float]:
        """Read-level pixels per tile pixel along x and y; (1, 1) means pixels are taken as they are."""
        return self.scale_x / self.level.downsample_x, self.scale_y / self.level.downsample_y

    @property
    def native(self) -> bool:
        """True if tile pixels are the read level's own pixels, taken as they are."""
        return self.reduction == (1.0, 1.0)

    def level_boxes(self, indices: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """Source boxes in pixels of the read level.

        A native grid's corners are rounded: at scale 1 a sub-pixel offset would only blur. All others keep
        their fractions, except for the noise of floating-point division near whole numbers.

        Args:
            indices: Positions in raster order, int64 (N,); None = all.

        Returns:
            float64 (N, 4): left, top, right, bottom.
        """
        down = (self.level.downsample_x, self.level.downsample_y)
        boxes = self.boxes(indices) / np.array(down * 2)
        if self.native:
            corners = np.rint(boxes[:, :2])
            return np.concatenate((corners, corners + self.tile_px), axis=1)
        whole = np.rint(boxes)
        exact: NDArray[np.float64] = np.where(np.abs(boxes - whole) < _NOISE_PX, whole, boxes)
        return exact


def _reaches(scale_x: float, scale_y: float, level: Level) -> bool:
    """True if a level is fine enough for a scale in level-0 pixels."""
    return min(scale_x / level.downsample_x, scale_y / level.downsample_y) >= 1.0 - _WHOLE_TOLERANCE


def _check_region(level: Level, options: GridConfig, scale_x: float, scale_y: float) -> None:
    # One pixel more on each side: a box may cut the pixels at its borders.
    width = math.ceil(options.edge_px * scale_x / level.downsample_x) + 2
    height = math.ceil(options.edge_px * scale_y / level.downsample_y) + 2
    if min(width, level.width_px) * min(height, level.height_px) > MAX_REGION_PX:
        raise SlideError(
            f"A tile of {options.edge_px} px at {options.target_mpp:g} µm per pixel covers {width} × "
            f"{height} px of the nearest level, more than are read at once; choose a smaller --tile-px or a "
            "finer --mpp."
        )


def _whole(scale: float, downsample: float) -> float:
    ratio = scale / downsample
    nearest = round(ratio)
    if nearest >= 1 and abs(ratio / nearest - 1.0) <= _WHOLE_TOLERANCE:
        return nearest * downsample
    return scale


def _count(length: int, tile: float, step: float) -> int:
    # The last tile may end a millionth of a pixel outside for rounding alone.
    free = length - tile + 1e-6
    return 0 if free < 0 else math.floor(free / step) + 1


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
