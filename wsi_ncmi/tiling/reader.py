"""Reading the selected tiles at the exact target resolution."""

import contextlib
import itertools
import logging
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import SlideReadError
from wsi_ncmi.slides import Slide
from wsi_ncmi.slides.stored import (
    PROBE_TOLERANCE,
    NotDirectError,
    StoredTiles,
    open_stored_tiles,
    probe_stored_tiles,
)
from wsi_ncmi.slides.tile_decoders import pixel_array
from wsi_ncmi.tiling.area import WHOLE_FACTORS, area_resample
from wsi_ncmi.tiling.grid import TileGrid, TileSelection
from wsi_ncmi.tiling.sources import DirectSource, PixelSource, ReaderSource

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


@dataclass(frozen=True, eq=False)
class TileGroup:
    """Tiles of a batch that are prepared together.

    Attributes:
        batch: The batch.
        places: Their places in it.
        tasks: Tasks of the threads that decode them.
    """

    batch: TileBatch
    places: range
    tasks: list[Future[None]] = field(default_factory=list)

    @property
    def positions(self) -> range:
        """Their positions in the selection."""
        start = int(self.batch.rows[0])
        return range(start + self.places.start, start + self.places.stop)


class TileReader(AbstractContextManager["TileReader"]):
    """Reads the selected tiles of a slide in raster order; use it as a context manager, once.

    Stored tiles of TIFF-based slides are decoded directly where that is proven to give the reader's pixels:
    some of them are compared when the reader is opened. Everything else is read through the slide's reader.

    Args:
        slide: The slide the grid was planned for; it stays open.
        grid: Its grid.
        selection: Tiles to read.
        threads: Threads to decode with.
        path: ``auto``, or ``reader`` to leave stored tiles alone.

    Attributes:
        path: ``direct`` or ``reader``.
        reason: Reason why stored tiles are not decoded directly, as half a sentence; empty where they are.
        note: One sentence for the ledger when direct decoding gave other pixels than the reader, or when the
            file stores nothing of some tiles; else empty.
        decoding_factor: Factor by which the decoder itself reduces tiles; 1 unless the grid allows it.
    """

    def __init__(
        self,
        slide: Slide,
        grid: TileGrid,
        selection: TileSelection,
        *,
        threads: int = 1,
        path: Literal["auto", "reader"] = "auto",
    ) -> None:
        if threads < 1:
            raise ValueError(f"threads must be at least 1, not {threads}.")
        self._grid, self._n = grid, len(selection)
        self._boxes, self._reduction = grid.level_boxes(selection.indices), grid.reduction
        self.decoding_factor = 1
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, "tiles") if threads > 1 else None
        self._stored: StoredTiles | None = None
        self.path: Literal["direct", "reader"] = "reader"
        self.reason, self.note = "", ""
        plan = _rectangles(self._boxes, grid.level.width_px, grid.level.height_px)
        self._source: PixelSource = ReaderSource(slide, grid.read_level, plan)
        if path == "reader":
            self.reason = "the slide's reader was asked for"
            return
        try:
            self._source = self._open_direct(slide)
            self.path = "direct"
        except NotDirectError as error:
            self.reason = str(error)
            _LOG.debug("%s is read through %s: %s", slide.path.name, slide.reader, error)

    def batches(self, batch_size: int, *, first: int | None = None) -> Iterator[TileBatch]:
        """Reads all tiles.

        Args:
            batch_size: Tiles in a batch; the last one may hold fewer.
            first: Tiles in the first batch, 1 to ``batch_size``, where it is to be another number.

        Yields:
            Batches that together hold every tile of the selection once, in raster order.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}.")
        if first is not None and not 1 <= first <= batch_size:
            raise ValueError(f"The first batch must have 1 to {batch_size} tiles, not {first}.")
        # With threads the next group is begun before this one is given out: nobody waits for the last tile.
        prefetch = 0 if self._pool is None else 1
        begun: deque[TileGroup] = deque()
        for group in self._groups(batch_size, batch_size if first is None else first):
            self._source.prepare(group.positions)
            self._begin(group)
            begun.append(group)
            if len(begun) > prefetch:
                yield from self._finish(begun.popleft())
        for group in begun:
            yield from self._finish(group)

    def _groups(self, batch_size: int, first_size: int) -> Iterator[TileGroup]:
        size = self._grid.tile_px
        starts = [0, *range(first_size, self._n, batch_size)] if self._n else []
        for start, stop in itertools.pairwise([*starts, self._n]):
            rows = np.arange(start, stop, dtype=np.int64)
            pixels = pixel_array(len(rows), size, size, 3)
            batch = TileBatch(rows, pixels, np.zeros(len(rows), np.bool_))
            for first in range(0, len(rows), self._source.group):
                yield TileGroup(batch, range(first, min(first + self._source.group, len(rows))))

    def _begin(self, group: TileGroup) -> None:
        places = group.places
        if self._pool is None:
            self._read(group.batch, places)
            return
        # One task a thread, which takes tiles as long as there are any: handing them out one by one, or a few
        # at a time, keeps the interpreter's lock from those that decode.
        rest = iter(places)
        for _ in range(min(self._threads, len(places))):
            group.tasks.append(self._pool.submit(self._read, group.batch, rest))

    def _finish(self, group: TileGroup) -> Iterator[TileBatch]:
        for task in group.tasks:
            task.result()
        self._source.release(group.positions)
        if group.places.stop == len(group.batch.rows):
            yield group.batch

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the threads and closes the file of stored tiles."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        if self._stored is not None:
            self._stored.close()
            self._stored = None

    def _open_direct(self, slide: Slide) -> DirectSource:
        level = self._grid.read_level
        with contextlib.ExitStack() as on_refusal:
            stored = on_refusal.enter_context(open_stored_tiles(slide, level))
            factor = _decoding_factor(stored, self._grid)
            tiles = stored.reduced(factor) if factor > 1 else stored
            boxes = self._boxes / factor
            reduction = self._reduction[0] / factor, self._reduction[1] / factor
            block = _block(tiles, boxes, reduction)
            plan = _rectangles(boxes, tiles.width_px, tiles.height_px)
            source = DirectSource(slide, tiles, plan, self._pool, block)
            # Tiles are proven at their full size; reduced ones have pixels of their own by design.
            self._refuse_wrong_pixels(slide, level, stored, source.used_tiles)
            on_refusal.pop_all()
        self._stored, self._boxes, self.decoding_factor = stored, boxes, factor
        if absent := source.count_absent():
            self.note = f"{absent} of {self._n} chosen tiles are not stored in the file and are background"
        self._reduction = reduction[0] / block, reduction[1] / block
        return source

    def _refuse_wrong_pixels(
        self, slide: Slide, level: int, stored: StoredTiles, used: NDArray[np.int64]
    ) -> None:
        worst = probe_stored_tiles(slide, level, stored, used) if len(used) else 0
        if worst < 0:
            raise NotDirectError("none of its stored tiles could be compared with the reader's pixels")
        if worst > PROBE_TOLERANCE:
            self.note = (
                f"stored tiles decoded directly differ from {slide.reader}'s pixels by {worst} grey levels, "
                f"so the slide was read through {slide.reader}"
            )
            _LOG.warning("%s: %s", slide.path.name, self.note)
            raise NotDirectError(f"its tiles differ from {slide.reader}'s by {worst} grey levels")

    def _read(self, batch: TileBatch, places: Iterable[int]) -> None:
        for place in places:
            try:
                self.read_into(int(batch.rows[place]), batch.pixels[place])
            except SlideReadError as error:
                batch.pixels[place] = 0
                batch.failed[place] = True
                _LOG.warning("%s", error)

    def read_into(self, position: int, out: NDArray[np.uint8]) -> None:
        """Reads one tile of the selection; :meth:`batches` is faster for many.

        Args:
            position: Its place in the selection.
            out: uint8 (tile_px, tile_px, 3), C-contiguous.

        Raises:
            SlideReadError: The tile can't be read; the content of ``out`` is then undefined.
        """
        if self._reduction == (1.0, 1.0):
            self._source.fill(position, out)
            return
        region, x, y = self._source.region(position)
        box = self._boxes[position]
        left, top = max(0.0, float(box[0]) - x), max(0.0, float(box[1]) - y)
        out[...] = area_resample(region, left, top, self._reduction, self._grid.tile_px)


def read_tiles(
    slide: Slide, grid: TileGrid, selection: TileSelection, batch_size: int, *, threads: int = 1
) -> Iterator[TileBatch]:
    """Reads the selected tiles in raster order, as :class:`TileReader` does.

    Args:
        slide: The slide the grid was planned for.
        grid: Its grid.
        selection: Tiles to read.
        batch_size: Tiles in a batch; the last one may hold fewer.
        threads: Threads to decode with.

    Yields:
        Batches that together hold every tile of the selection once.
    """
    with TileReader(slide, grid, selection, threads=threads) as reader:
        yield from reader.batches(batch_size)


def read_tile(slide: Slide, grid: TileGrid, index: int) -> NDArray[np.uint8]:
    """Reads one tile through the slide's reader.

    Args:
        slide: The slide.
        grid: Its grid.
        index: Position in the grid, in raster order.

    Returns:
        uint8 (tile_px, tile_px, 3).

    Raises:
        SlideReadError: The region can't be read.
    """
    chosen = np.array([index], np.int64)
    selection = TileSelection(chosen, grid.coords(chosen), np.ones(1, np.float16))
    pixels = np.empty((grid.tile_px, grid.tile_px, 3), np.uint8)
    with TileReader(slide, grid, selection, path="reader") as reader:
        reader.read_into(0, pixels)
    return pixels


def _decoding_factor(stored: StoredTiles, grid: TileGrid) -> int:
    """The largest reduction that the decoder may do: it never gives fewer pixels than the target has."""
    if grid.scaled_decoding:
        for factor in (8, 4, 2):
            if factor <= min(grid.reduction) and stored.reducible(factor):
                return factor
    return 1


def _block(stored: StoredTiles, boxes: NDArray[np.float64], reduction: tuple[float, float]) -> int:
    """Sides of the blocks of pixels whose means the tiles are, if none lies in two stored tiles; else 1."""
    inside = not len(boxes) or (boxes[:, 2:].max(axis=0) <= (stored.width_px, stored.height_px)).all()
    for factor in WHOLE_FACTORS if inside else ():
        split = stored.tile_width_px % factor or stored.tile_height_px % factor or (boxes % factor).any()
        if reduction[0] == reduction[1] == factor and not split:
            return factor
    return 1


def _rectangles(boxes: NDArray[np.float64], width_px: int, height_px: int) -> NDArray[np.int64]:
    """The whole pixels that boxes touch, inside a level of that size: int64 (N, 4)."""
    corners = np.concatenate((np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:])), axis=1).astype(np.int64)
    sides = np.array((width_px, height_px) * 2)
    # A level may be shorter than level 0 by a fraction of a pixel: its last pixel is then repeated.
    least = np.array((0, 0, 1, 1))
    return np.clip(corners, least, sides - 1 + least)
