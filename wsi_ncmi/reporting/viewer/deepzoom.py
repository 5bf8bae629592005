"""Deep Zoom tiles of a slide.

Deep Zoom halves from level to level; a slide's pyramid does so in steps of its own. Each Deep Zoom level is
taken from the nearest finer level of the slide, by area averaging where the two differ. Where a slide's
pyramid has a gap of more than eight, a tile is made of the four below it, so that memory stays bounded.
"""

import contextlib
import math
import threading
from collections import OrderedDict

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from wsi_ncmi.slides import Slide
from wsi_ncmi.slides.stored import (
    PROBE_TOLERANCE,
    NotDirectError,
    StoredTiles,
    open_stored_tiles,
    probe_stored_tiles,
)
from wsi_ncmi.tiling.area import area_resample

TILE_PX = 512

_KEPT_BYTES = 64 << 20
_QUALITY = 80
_MAX_REDUCTION = 8.0
_KEPT_TILES = 64


class _LevelPixels:
    """One level of an open slide; reading from several threads is safe.

    Args:
        slide: The slide; it stays open.
        number: Index of the level.

    Attributes:
        direct: Whether stored tiles are decoded without the slide's reader.
    """

    def __init__(self, slide: Slide, number: int) -> None:
        self._slide, self._number = slide, number
        self._level = slide.levels[number]
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()
        self._stored = _proven(slide, number)
        self.direct = self._stored is not None

    def read(self, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """Reads a rectangle that lies inside the level.

        Args:
            x: Left edge in the level's pixels.
            y: Top edge.
            width: Width.
            height: Height.

        Returns:
            uint8 (height, width, 3).

        Raises:
            SlideReadError: It can't be read.
        """
        if self._stored is not None:
            with contextlib.suppress(Exception):  # a damaged or absent tile is left to the reader
                return self._assembled(self._stored, x, y, width, height)
        left, top = round(x * self._level.downsample_x), round(y * self._level.downsample_y)
        return self._slide.read_region(left, top, self._number, width, height)

    def close(self) -> None:
        """Closes the file of stored tiles."""
        if self._stored is not None:
            self._stored.close()
            self._stored, self.direct = None, False

    def _assembled(self, stored: StoredTiles, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        wide, high = stored.tile_width_px, stored.tile_height_px
        out = np.empty((height, width, 3), np.uint8)
        for row in range(y // high, (y + height - 1) // high + 1):
            for column in range(x // wide, (x + width - 1) // wide + 1):
                tile = self._tile(stored, row * stored.n_columns + column)
                left, top = column * wide, row * high
                x0, x1 = max(x, left), min(x + width, left + wide)
                y0, y1 = max(y, top), min(y + height, top + high)
                out[y0 - y : y1 - y, x0 - x : x1 - x] = tile[y0 - top : y1 - top, x0 - left : x1 - left]
        return out

    def _tile(self, stored: StoredTiles, index: int) -> NDArray[np.uint8]:
        with self._lock:
            kept = self._kept.get(index)
            if kept is not None:
                self._kept.move_to_end(index)
                return kept
        if stored.is_absent(index):
            raise NotDirectError("the tile is absent")
        tile = np.empty((stored.tile_height_px, stored.tile_width_px, 3), np.uint8)
        stored.decode(index, tile)
        with self._lock:
            self._kept[index] = tile
            while len(self._kept) * tile.nbytes > _KEPT_BYTES:
                self._kept.popitem(last=False)
        return tile


def _proven(slide: Slide, number: int) -> StoredTiles | None:
    """The level's stored tiles, after some of them were compared with the slide's reader."""
    try:
        stored = open_stored_tiles(slide, number)
    except NotDirectError:
        return None
    present = np.flatnonzero(stored.byte_counts > 0).astype(np.int64)
    worst = probe_stored_tiles(slide, number, stored, present) if len(present) else -1
    if 0 <= worst <= PROBE_TOLERANCE:
        return stored
    stored.close()
    return None


class DeepZoom:
    """The pyramid of one open slide, safe to use from several threads.

    Args:
        slide: The slide; it stays open.
        tile_px: Edge of a tile; tiles do not overlap.

    Attributes:
        tile_px: Edge of a tile.
        level_count: Number of levels; level 0 is one pixel, the last the slide's own level 0.
    """

    def __init__(self, slide: Slide, tile_px: int = TILE_PX) -> None:
        self._slide = slide
        self.tile_px = tile_px
        self._size = slide.width_px, slide.height_px
        self.level_count = math.ceil(math.log2(max(self._size))) + 1
        self._levels: dict[int, _LevelPixels] = {}
        self._opening = threading.Lock()
        self._kept: OrderedDict[tuple[int, int, int], NDArray[np.uint8]] = OrderedDict()
        self._keeping = threading.Lock()

    def size(self, level: int) -> tuple[int, int]:
        """Width and height of a level in pixels."""
        scale = 1 << (self.level_count - 1 - level)
        return -(-self._size[0] // scale), -(-self._size[1] // scale)

    def has(self, level: int, column: int, row: int) -> bool:
        """Whether there is such a tile."""
        if not 0 <= level < self.level_count or column < 0 or row < 0:
            return False
        width, height = self.size(level)
        return column * self.tile_px < width and row * self.tile_px < height

    def window(
        self, level: int, column: int, row: int
    ) -> tuple[tuple[float, float, float, float], tuple[int, int]]:
        """Extent of a tile: left, top, right, bottom in level-0 pixels, and its height and width."""
        scale = 1 << (self.level_count - 1 - level)
        width, height = self._tile_size(level, column, row)
        left, top = column * self.tile_px * scale, row * self.tile_px * scale
        return (left, top, left + width * scale, top + height * scale), (height, width)

    def jpeg(self, level: int, column: int, row: int) -> bytes:
        """A tile as JPEG.

        Raises:
            KeyError: There is no such tile.
            SlideReadError: It can't be read.
        """
        pixels = self.pixels(level, column, row)
        return bytes(
            simplejpeg.encode_jpeg(pixels, quality=_QUALITY, colorspace="RGB", colorsubsampling="420")
        )

    def pixels(self, level: int, column: int, row: int) -> NDArray[np.uint8]:
        """A tile's pixels, uint8 (h, w, 3), C-contiguous.

        Raises:
            KeyError: There is no such tile.
            SlideReadError: It can't be read.
        """
        if not self.has(level, column, row):
            raise KeyError(f"there is no tile {column}, {row} at level {level}")
        scale = float(1 << (self.level_count - 1 - level))
        number = self._best_level(scale)
        view = self._slide.levels[number]
        ratio = scale / view.downsample_x, scale / view.downsample_y
        if max(ratio) > _MAX_REDUCTION:
            return self._from_children(level, column, row)
        return self._read(number, ratio, level, column, row)

    def close(self) -> None:
        """Closes the files of stored tiles; the slide stays open."""
        with self._opening:
            for level in self._levels.values():
                level.close()
            self._levels.clear()

    def _tile_size(self, level: int, column: int, row: int) -> tuple[int, int]:
        width, height = self.size(level)
        return min(self.tile_px, width - column * self.tile_px), min(
            self.tile_px, height - row * self.tile_px
        )

    def _best_level(self, scale: float) -> int:
        """The coarsest level of the slide that is not coarser than the scale, rounding of its sides aside."""
        fine = [
            number
            for number, level in enumerate(self._slide.levels)
            if max(level.downsample_x, level.downsample_y) <= scale * 1.005
        ]
        return max(fine, key=lambda number: self._slide.levels[number].downsample_x, default=0)

    def _read(
        self, number: int, ratio: tuple[float, float], level: int, column: int, row: int
    ) -> NDArray[np.uint8]:
        view = self._slide.levels[number]
        width, height = self._tile_size(level, column, row)
        whole = tuple(
            _snapped(r, side) for r, side in zip(ratio, (view.width_px, view.height_px), strict=True)
        )
        left, top = (position * self.tile_px * r for position, r in zip((column, row), whole, strict=True))
        x, y = min(math.floor(left), view.width_px - 1), min(math.floor(top), view.height_px - 1)
        right = min(view.width_px, max(x + 1, math.ceil(left + width * whole[0] - 1e-6)))
        bottom = min(view.height_px, max(y + 1, math.ceil(top + height * whole[1] - 1e-6)))
        region = self._pixels_of(number).read(x, y, right - x, bottom - y)
        if whole == (1.0, 1.0) and region.shape[:2] == (height, width):
            return region
        size = max(width, height)
        reduced = area_resample(region, max(0.0, left - x), max(0.0, top - y), (whole[0], whole[1]), size)
        return np.ascontiguousarray(reduced[:height, :width])

    def _from_children(self, level: int, column: int, row: int) -> NDArray[np.uint8]:
        key = (level, column, row)
        with self._keeping:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        width, height = self._tile_size(level, column, row)
        below = np.full((2 * self.tile_px, 2 * self.tile_px, 3), 255, np.uint8)
        filled = [0, 0]
        for down in (0, 1):
            for across in (0, 1):
                child = (level + 1, 2 * column + across, 2 * row + down)
                if self.has(*child):
                    pixels = self.pixels(*child)
                    h, w = pixels.shape[:2]
                    y, x = down * self.tile_px, across * self.tile_px
                    below[y : y + h, x : x + w] = pixels
                    filled = [max(filled[0], y + h), max(filled[1], x + w)]
        region = below[: filled[0], : filled[1]]
        reduced = area_resample(np.ascontiguousarray(region), 0.0, 0.0, (2.0, 2.0), max(width, height))
        tile = np.ascontiguousarray(reduced[:height, :width])
        with self._keeping:
            self._kept[key] = tile
            while len(self._kept) > _KEPT_TILES:
                self._kept.popitem(last=False)
        return tile

    def _pixels_of(self, number: int) -> _LevelPixels:
        with self._opening:
            if number not in self._levels:
                self._levels[number] = _LevelPixels(self._slide, number)
            return self._levels[number]


def _snapped(ratio: float, side: int) -> float:
    """The whole number next to a ratio, where that moves no pixel of the level by more than one."""
    nearest = max(1.0, float(round(ratio)))
    return nearest if abs(nearest / ratio - 1) * side <= 1 else ratio
