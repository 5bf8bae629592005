"""Rectangles of a level for analysis: from stored tiles where that is proven, else through the reader.

Tiles of a grid are read exactly (``reader``). Here the decoder may reduce JPEG tiles itself, which is near
the area mean but not equal to it.
"""

import logging
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import SlideReadError
from wsi_ncmi.slides.base import LevelPart, LevelReader, Slide, background_colour
from wsi_ncmi.slides.stored import (
    PROBE_TOLERANCE,
    NotDirectError,
    StoredTiles,
    open_stored_tiles,
    probe_stored_tiles,
)
from wsi_ncmi.slides.tile_decoders import pixel_array

_LOG = logging.getLogger(__name__)
# Neighbouring rectangles share stored tiles: so many bytes of the last ones are kept.
_KEPT_BYTES = 16 << 20
# A tile of a grid is proven by more: its pixels are what is kept.
_PROBES = 2


class StoredRegions(LevelReader):
    """Decodes the stored tiles under each rectangle, reduced as far as allowed; see the base class.

    Stored tiles under the first rectangle are compared with the reader's pixels. Where they differ (at all,
    if ``most`` is 1), or can't be decoded directly, every rectangle comes through the reader. With ``proven``
    nothing is compared: the caller does it.
    """

    def __init__(self, slide: Slide, level: int, most: float, *, proven: bool = False) -> None:
        super().__init__(slide, level, most)
        # What may not be reduced has to be equal: of an overview the mask of tissue is made.
        self._tolerance = PROBE_TOLERANCE if most > 1 else 0
        self._background = np.array(background_colour(slide.properties), np.uint8)
        self._kept: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()
        self._proven = proven
        self._full: StoredTiles | None = None
        try:
            self._full = open_stored_tiles(slide, level)
        except NotDirectError as error:
            self._refuse(str(error))
            return
        self._factor = next((by for by in (8, 4, 2) if by <= most and self._full.reducible(by)), 1)
        self._tiles = self._full.reduced(self._factor) if self._factor > 1 else self._full

    @property
    def direct(self) -> bool:
        """True if stored tiles are decoded directly."""
        return self._full is not None

    def read(self, left: int, top: int, right: int, bottom: int) -> LevelPart:
        """See the base class."""
        full = self._full
        if full is None:
            return super().read(left, top, right, bottom)
        wide, high = full.tile_width_px, full.tile_height_px
        columns, rows = range(left // wide, -(-right // wide)), range(top // high, -(-bottom // high))
        needed = [row * full.n_columns + column for row in rows for column in columns]
        if not self._proven and not self._prove(full, np.array(needed, np.int64)):
            return super().read(left, top, right, bottom)
        by, tiles = self._factor, self._tiles
        across, down = tiles.tile_width_px, tiles.tile_height_px
        x0, y0, x1, y1 = left // by, top // by, -(-right // by), -(-bottom // by)
        block = np.empty((y1 - y0, x1 - x0, 3), np.uint8)
        for index in needed:
            row, column = divmod(index, full.n_columns)
            x, y = column * across, row * down
            a, b, c, d = max(x0, x), min(x1, x + across), max(y0, y), min(y1, y + down)
            block[c - y0 : d - y0, a - x0 : b - x0] = self._tile(index)[c - y : d - y, a - x : b - x]
        return LevelPart(block, x0 * by, y0 * by, by)

    def close(self) -> None:
        """Closes the file of stored tiles."""
        if self._full is not None:
            self._full.close()
            self._full = None
        self._kept.clear()

    def _prove(self, full: StoredTiles, needed: NDArray[np.int64]) -> bool:
        used = needed[full.byte_counts[needed] > 0]
        if not len(used):
            return False  # nothing is stored here: another rectangle will tell
        worst = probe_stored_tiles(self._slide, self._number, full, used, _PROBES)
        self._proven = 0 <= worst <= self._tolerance
        if not self._proven:
            self._refuse("its stored tiles are not the reader's pixels, or could not be compared")
            self.close()
        return self._proven

    def _tile(self, index: int) -> NDArray[np.uint8]:
        kept = self._kept.get(index)
        if kept is not None:
            self._kept.move_to_end(index)
            return kept
        tile = pixel_array(self._tiles.tile_height_px, self._tiles.tile_width_px, 3)
        if self._tiles.is_absent(index):
            tile[...] = self._background
        else:
            try:
                self._tiles.decode(index, tile)
            except Exception as error:  # decoders raise what they like: all mean the same
                raise SlideReadError(
                    f"{self._slide.path.name}: the stored tile {index} can't be decoded ({error})."
                ) from error
        self._kept[index] = tile
        while len(self._kept) * tile.nbytes > _KEPT_BYTES:
            self._kept.popitem(last=False)
        return tile

    def _refuse(self, reason: str) -> None:
        _LOG.debug("regions of %s are read through %s: %s", self._slide.path.name, self._slide.reader, reason)
