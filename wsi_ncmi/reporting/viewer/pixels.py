"""Rectangles of one pyramid level: from its stored tiles where that is proven, else through the reader."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.slides import Slide
from wsi_ncmi.tiling.stored import (
    PROBE_TOLERANCE,
    NotDirectError,
    StoredTiles,
    open_stored_tiles,
    probe_stored_tiles,
)

__all__ = ["LevelPixels"]

_KEPT_BYTES = 64 << 20


class LevelPixels:
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
            with contextlib.suppress(Exception):  # a damaged or absent tile: the reader knows what to show
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
    """The level's stored tiles, after some of them were compared with what the slide's reader gives."""
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
