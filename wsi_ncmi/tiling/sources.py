"""Sources of a read level's pixels: the slide's reader, or its stored tiles decoded directly."""

import math
import threading
from abc import ABC, abstractmethod
from concurrent.futures import Executor

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import SlideReadError
from wsi_ncmi.slides import Slide
from wsi_ncmi.slides.base import background_colour
from wsi_ncmi.slides.stored import StoredTiles
from wsi_ncmi.slides.tile_decoders import pixel_array
from wsi_ncmi.tiling.area import block_mean

CACHE_BYTES = 256 << 20
"""Decoded tiles kept for later use. One row of a slide 150,000 px wide takes 115 MB."""

_GROUP_BYTES = 64 << 20
_TILES_A_TASK = 4


class PixelSource(ABC):
    """Gives the rectangles of a plan, to be asked for in the plan's order.

    Attributes:
        plan: int64 (N, 4): left, top, right, bottom in whole pixels of the level, right and bottom excluded.
        group: Rectangles that are worth preparing together.
    """

    def __init__(self, plan: NDArray[np.int64], group: int) -> None:
        self.plan = plan
        self.group = group

    def prepare(self, positions: range) -> None:  # noqa: B027 - only a source with a cache has work to do
        """Announces that the rectangles at these positions of the plan are read next."""

    def release(self, positions: range) -> None:  # noqa: B027
        """Announces that these rectangles have been read and won't be read again."""

    @abstractmethod
    def fill(self, position: int, out: NDArray[np.uint8]) -> None:
        """Writes a rectangle into an array of its size, to the nearest whole pixel.

        Raises:
            SlideReadError: The pixels can't be read.
        """

    @abstractmethod
    def region(self, position: int) -> tuple[NDArray[np.uint8], float, float]:
        """Reads a rectangle for a resample.

        Returns:
            uint8 (h, w, 3) that holds at least the rectangle, and the level pixel (x, y) at which its corner
            lies: the rectangle's own, or up to a pixel less where a reader can't be asked for whole pixels.

        Raises:
            SlideReadError: The pixels can't be read.
        """

    def _rectangle(self, position: int) -> tuple[int, int, int, int]:
        left, top, right, bottom = self.plan[position].tolist()
        return left, top, right, bottom


class ReaderSource(PixelSource):
    """Reads through the slide's own reader.

    Args:
        slide: An open slide.
        level: Index of the level.
        plan: The rectangles.
    """

    def __init__(self, slide: Slide, level: int, plan: NDArray[np.int64]) -> None:
        super().__init__(plan, group=16)
        self._slide, self._level = slide, level
        view = slide.levels[level]
        # OpenSlide divides level-0 coordinates by the mean of both axes.
        self._down = (view.downsample_x + view.downsample_y) / 2

    def fill(self, position: int, out: NDArray[np.uint8]) -> None:
        """See the base class."""
        left, top, right, bottom = self._rectangle(position)
        x, y = round(left * self._down), round(top * self._down)
        out[...] = self._slide.read_region(x, y, self._level, right - left, bottom - top)

    def region(self, position: int) -> tuple[NDArray[np.uint8], float, float]:
        """See the base class."""
        left, top, right, bottom = self._rectangle(position)
        x, y = math.floor(left * self._down + 1e-6), math.floor(top * self._down + 1e-6)
        start_x, start_y = min(x / self._down, left), min(y / self._down, top)
        width, height = math.ceil(right - start_x - 1e-6), math.ceil(bottom - start_y - 1e-6)
        return self._slide.read_region(x, y, self._level, width, height), start_x, start_y


class DirectSource(PixelSource):
    """Decodes stored tiles, each of them once as long as the plan is followed.

    The uses of each tile are counted beforehand. One that a single rectangle needs is decoded when that is
    filled, while it is in the processor's cache; another is kept exactly until its last use. Only above
    ``CACHE_BYTES`` the oldest are dropped and would be decoded again. A tile that can't be decoded fails
    every rectangle that touches it.

    Args:
        slide: The slide; its background colour fills absent tiles.
        stored: The level's tiles.
        plan: The rectangles, all inside the level.
        pool: Threads to decode with, or None.
        block: Rectangles are filled with the means of blocks of so many pixels a side (see ``block_mean``);
            the sides of tiles and rectangles, and their corners, are multiples of it.
    """

    def __init__(
        self,
        slide: Slide,
        stored: StoredTiles,
        plan: NDArray[np.int64],
        pool: Executor | None = None,
        block: int = 1,
    ) -> None:
        self._name, self._stored, self._pool, self._block = slide.path.name, stored, pool, block
        self._buffers = threading.local()
        self._wide, self._high = stored.tile_width_px, stored.tile_height_px
        self._all = slice(0, self._high), slice(0, self._wide)
        self._background = np.array(background_colour(slide.properties), np.uint8)
        self._cache: dict[int, NDArray[np.uint8] | SlideReadError] = {}
        # Arrays of tiles after their last use: fresh memory costs a fifth of the decoding.
        self._spare: list[NDArray[np.uint8]] = []
        self._uses = _count_uses(stored, plan)
        self._left: list[int] = self._uses.tolist()
        # Rectangles with tiles that others need too.
        self._once = self._uses <= 1
        self._shared = _count_tiles(stored, plan, ~self._once) > 0
        # The stored tile that a rectangle is, where no other one touches it; else -1.
        sides = np.array((stored.tile_width_px, stored.tile_height_px))
        whole = (plan % np.tile(sides, 2) == 0).all(axis=1) & (plan[:, 2:] - plan[:, :2] == sides).all(axis=1)
        places = plan[:, 1] // sides[1] * stored.n_columns + plan[:, 0] // sides[0]
        self._whole = np.where(whole & ~self._shared, places, -1)
        self._tile_bytes = stored.tile_width_px * stored.tile_height_px * 3 // block**2
        most = 1
        if len(plan):
            wide, high = (plan[:, 2:] - plan[:, :2]).max(axis=0)
            most = (wide // stored.tile_width_px + 2) * (high // stored.tile_height_px + 2)
        super().__init__(plan, group=int(max(1, min(64, _GROUP_BYTES // (self._tile_bytes * most)))))

    @property
    def used_tiles(self) -> NDArray[np.int64]:
        """The stored tiles that the plan needs and the file holds, ascending."""
        return np.flatnonzero((self._uses > 0) & (self._stored.byte_counts > 0)).astype(np.int64)

    def count_absent(self) -> int:
        """Rectangles of the plan of which the file stores nothing: they are background."""
        return int(np.count_nonzero(_count_tiles(self._stored, self.plan, self._stored.byte_counts > 0) == 0))

    def prepare(self, positions: range) -> None:
        """Decodes the tiles that the rectangles need and the cache lacks."""
        needed: dict[int, None] = {}
        for position in positions:
            if self._shared[position]:
                needed.update({index: None for index in self._needs(position) if not self._once[index]})
        missing = [index for index in needed if index not in self._cache]
        if self._pool is None:
            parts = [self._decoded_part(missing)]
        else:
            # A few tiles a task: handing out each one alone holds up the threads that decode.
            chunks = [missing[i : i + _TILES_A_TASK] for i in range(0, len(missing), _TILES_A_TASK)]
            parts = list(self._pool.map(self._decoded_part, chunks))
        for part in parts:
            self._cache.update(part)

    def release(self, positions: range) -> None:
        """Forgets tiles after their last use, and the oldest ones above the cache's limit."""
        for position in positions:
            for index in self._needs(position) if self._shared[position] else ():
                self._left[index] -= 1
                if not self._left[index] and isinstance(tile := self._cache.pop(index, None), np.ndarray):
                    self._spare.append(tile)
        while len(self._cache) * self._tile_bytes > CACHE_BYTES:
            # Another thread may be reading this one: its array isn't used again.
            del self._cache[next(iter(self._cache))]

    def fill(self, position: int, out: NDArray[np.uint8]) -> None:
        """See the base class; of blocks, ``out`` is of as many pixels as there are."""
        if (whole := int(self._whole[position])) >= 0:
            self._decode(whole, self._all, out)
            return
        left, top, right, bottom = self._rectangle(position)
        wide, high, by, across = self._wide, self._high, self._block, self._stored.n_columns
        for row in range(top // high, (bottom - 1) // high + 1):
            y = row * high
            y0, y1 = max(top, y), min(bottom, y + high)
            for column in range(left // wide, (right - 1) // wide + 1):
                x, index = column * wide, row * across + column
                x0, x1 = max(left, x), min(right, x + wide)
                place = out[(y0 - top) // by : (y1 - top) // by, (x0 - left) // by : (x1 - left) // by]
                tile = self._cache.get(index)
                if tile is None:  # used once, or dropped above the cache's limit
                    self._decode(index, (slice(y0 - y, y1 - y), slice(x0 - x, x1 - x)), place)
                elif isinstance(tile, SlideReadError):
                    raise SlideReadError(str(tile))
                else:
                    place[...] = tile[(y0 - y) // by : (y1 - y) // by, (x0 - x) // by : (x1 - x) // by]

    def region(self, position: int) -> tuple[NDArray[np.uint8], float, float]:
        """See the base class."""
        left, top, right, bottom = self._rectangle(position)
        out = pixel_array(bottom - top, right - left, 3)
        self.fill(position, out)
        return out, float(left), float(top)

    def _needs(self, position: int) -> list[int]:
        left, top, right, bottom = self._rectangle(position)
        wide, high, across = self._stored.tile_width_px, self._stored.tile_height_px, self._stored.n_columns
        columns = range(left // wide, (right - 1) // wide + 1)
        return [
            row * across + column
            for row in range(top // high, (bottom - 1) // high + 1)
            for column in columns
        ]

    def _decoded_part(self, indices: list[int]) -> dict[int, NDArray[np.uint8] | SlideReadError]:
        return {index: self._decoded(index) for index in indices}

    def _decoded(self, index: int) -> NDArray[np.uint8] | SlideReadError:
        rows, columns = _divided(self._all, self._block)
        try:
            tile = self._spare.pop()
        except IndexError:
            tile = pixel_array(rows.stop, columns.stop, 3)
        try:
            self._decode(index, self._all, tile)
        except SlideReadError as error:
            return error
        return tile

    def _decode(self, index: int, part: tuple[slice, slice], out: NDArray[np.uint8]) -> None:
        """Decodes a tile, and writes a part of it, or the means of its blocks, into an array."""
        if self._stored.is_absent(index):
            out[...] = self._background
            return
        shape = (self._stored.tile_height_px, self._stored.tile_width_px, 3)
        straight = out.shape == shape and out.flags.c_contiguous
        tile = out if straight else self._buffer(shape)
        try:
            self._stored.decode(index, tile)
        except Exception as error:  # decoders raise what they like: all mean the same
            raise SlideReadError(
                f"{self._name}: the stored tile {index} can't be decoded ({error})."
            ) from error
        if self._block > 1:
            block_mean(tile[part], self._block, out)
        elif not straight:
            out[...] = tile[part]

    def _buffer(self, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
        """A tile's pixels, of which each thread has one array: fresh memory costs a tenth of the decoding."""
        if not hasattr(self._buffers, "tile"):
            self._buffers.tile = pixel_array(*shape)
        tile: NDArray[np.uint8] = self._buffers.tile
        return tile


def _divided(part: tuple[slice, slice], by: int) -> tuple[slice, slice]:
    rows, columns = part
    return slice(rows.start // by, rows.stop // by), slice(columns.start // by, columns.stop // by)


def _tile_blocks(stored: StoredTiles, plan: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
    """The stored tiles that each rectangle touches: left, top, right, bottom, the last two excluded."""
    return (
        plan[:, 0] // stored.tile_width_px,
        plan[:, 1] // stored.tile_height_px,
        (plan[:, 2] - 1) // stored.tile_width_px + 1,
        (plan[:, 3] - 1) // stored.tile_height_px + 1,
    )


def _count_tiles(stored: StoredTiles, plan: NDArray[np.int64], flags: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Number of the flagged ones among the stored tiles that each rectangle touches, int64 (N,)."""
    table = np.zeros((stored.n_rows + 1, stored.n_columns + 1), np.int64)
    table[1:, 1:] = flags.reshape(stored.n_rows, stored.n_columns).cumsum(axis=0).cumsum(axis=1)
    left, top, right, bottom = _tile_blocks(stored, plan)
    counts: NDArray[np.int64] = (
        table[bottom, right] - table[top, right] - table[bottom, left] + table[top, left]
    )
    return counts


def _count_uses(stored: StoredTiles, plan: NDArray[np.int64]) -> NDArray[np.int32]:
    """Number of rectangles that touch each stored tile, int32 (n_rows · n_columns,)."""
    # Each rectangle adds one to a block of tiles: mark the block's corners, then sum along both axes.
    steps = np.zeros((stored.n_rows + 1, stored.n_columns + 1), np.int32)
    left, top, right, bottom = _tile_blocks(stored, plan)
    for rows, columns, sign in ((top, left, 1), (top, right, -1), (bottom, left, -1), (bottom, right, 1)):
        np.add.at(steps, (rows, columns), sign)
    return steps.cumsum(axis=0).cumsum(axis=1)[:-1, :-1].ravel().astype(np.int32)
