"""Sources of a read level's pixels: the slide's reader, or its stored tiles decoded directly."""

import math
from abc import ABC, abstractmethod
from concurrent.futures import Executor

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import SlideReadError
from wsi_ncmi.slides import Slide
from wsi_ncmi.slides.base import background_colour
from wsi_ncmi.tiling.stored import StoredTiles

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

    The uses of each tile are counted beforehand, so a decoded tile is kept exactly until its
    last use; only above ``CACHE_BYTES`` the oldest are dropped and would be decoded again. A tile that can't
    be decoded fails every rectangle that touches it.

    Args:
        slide: The slide; its background colour fills absent tiles.
        stored: The level's tiles.
        plan: The rectangles, all inside the level.
        pool: Threads to decode with, or None.
    """

    def __init__(
        self, slide: Slide, stored: StoredTiles, plan: NDArray[np.int64], pool: Executor | None = None
    ) -> None:
        self._name, self._stored, self._pool = slide.path.name, stored, pool
        self._background = np.array(background_colour(slide.properties), np.uint8)
        self._cache: dict[int, NDArray[np.uint8] | SlideReadError] = {}
        self._uses = _count_uses(stored, plan)
        self._whole = _whole_tiles(stored, plan, self._uses)
        self._tile_bytes = stored.tile_width_px * stored.tile_height_px * 3
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
        present = np.minimum(self._stored.byte_counts, 1).reshape(self._stored.n_rows, self._stored.n_columns)
        table = np.zeros((present.shape[0] + 1, present.shape[1] + 1), np.int64)
        table[1:, 1:] = present.cumsum(axis=0).cumsum(axis=1)
        left, top, right, bottom = _tile_blocks(self._stored, self.plan)
        inside = table[bottom, right] - table[top, right] - table[bottom, left] + table[top, left]
        return int(np.count_nonzero(inside == 0))

    def prepare(self, positions: range) -> None:
        """Decodes the tiles that the rectangles need and the cache lacks."""
        needed: dict[int, None] = {}
        for position in positions:
            if self._whole[position] < 0:
                needed.update(dict.fromkeys(self._needs(position)))
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
            if self._whole[position] >= 0:  # was never kept
                continue
            for index in self._needs(position):
                self._uses[index] -= 1
                if not self._uses[index]:
                    self._cache.pop(index, None)
        while len(self._cache) * self._tile_bytes > CACHE_BYTES:
            del self._cache[next(iter(self._cache))]

    def fill(self, position: int, out: NDArray[np.uint8]) -> None:
        """See the base class; a rectangle that is one stored tile is decoded straight into its place."""
        if (whole := int(self._whole[position])) >= 0:
            self._decode(whole, out)
            return
        needs = self._needs(position)
        left, top, right, bottom = self._rectangle(position)
        wide, high = self._stored.tile_width_px, self._stored.tile_height_px
        for index in needs:
            tile = self._cache.get(index)
            if tile is None:  # dropped above the cache's limit
                tile = self._decoded(index)
            if isinstance(tile, SlideReadError):
                raise SlideReadError(str(tile))
            row, column = divmod(index, self._stored.n_columns)
            x, y = column * wide, row * high
            x0, x1, y0, y1 = max(left, x), min(right, x + wide), max(top, y), min(bottom, y + high)
            out[y0 - top : y1 - top, x0 - left : x1 - left] = tile[y0 - y : y1 - y, x0 - x : x1 - x]

    def region(self, position: int) -> tuple[NDArray[np.uint8], float, float]:
        """See the base class."""
        left, top, right, bottom = self._rectangle(position)
        out = np.empty((bottom - top, right - left, 3), np.uint8)
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
        tile = np.empty((self._stored.tile_height_px, self._stored.tile_width_px, 3), np.uint8)
        try:
            self._decode(index, tile)
        except SlideReadError as error:
            return error
        return tile

    def _decode(self, index: int, out: NDArray[np.uint8]) -> None:
        if self._stored.is_absent(index):
            out[...] = self._background
            return
        try:
            self._stored.decode(index, out)
        except Exception as error:  # decoders raise what they like: all mean the same
            raise SlideReadError(
                f"{self._name}: the stored tile {index} can't be decoded ({error})."
            ) from error


def _tile_blocks(stored: StoredTiles, plan: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
    """The stored tiles that each rectangle touches: left, top, right, bottom, the last two excluded."""
    return (
        plan[:, 0] // stored.tile_width_px,
        plan[:, 1] // stored.tile_height_px,
        (plan[:, 2] - 1) // stored.tile_width_px + 1,
        (plan[:, 3] - 1) // stored.tile_height_px + 1,
    )


def _whole_tiles(stored: StoredTiles, plan: NDArray[np.int64], uses: NDArray[np.int32]) -> NDArray[np.int64]:
    """The stored tile that each rectangle is, where no other one touches it; else -1: int64 (N,)."""
    left, top, right, bottom = _tile_blocks(stored, plan)
    index = top * stored.n_columns + left
    whole = (right - left == 1) & (bottom - top == 1)
    whole &= plan[:, 2] - plan[:, 0] == stored.tile_width_px
    whole &= plan[:, 3] - plan[:, 1] == stored.tile_height_px
    whole &= uses[np.where(whole, index, 0)] == 1
    return np.where(whole, index, -1).astype(np.int64)


def _count_uses(stored: StoredTiles, plan: NDArray[np.int64]) -> NDArray[np.int32]:
    """Number of rectangles that touch each stored tile, int32 (n_rows · n_columns,)."""
    # Each rectangle adds one to a block of tiles: mark the block's corners, then sum along both axes.
    steps = np.zeros((stored.n_rows + 1, stored.n_columns + 1), np.int32)
    left, top, right, bottom = _tile_blocks(stored, plan)
    for rows, columns, sign in ((top, left, 1), (top, right, -1), (bottom, left, -1), (bottom, right, 1)):
        np.add.at(steps, (rows, columns), sign)
    return steps.cumsum(axis=0).cumsum(axis=1)[:-1, :-1].ravel().astype(np.int32)
