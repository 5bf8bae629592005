"""The overview of a slide, by exact area averaging of a pyramid level in bounded memory.

As products with sparse matrices: a source pixel meets at most two cells along each axis, so the work is two
additions a pixel whatever the ratio. Dense products over strips of rows took six times as long at ratio 1 and
as long at 16 (one Zen 4 core).

Only pyramid levels are read, never the embedded thumbnail, label or macro image. Each output pixel is the
mean of the level's pixels under it, weighted with the area that they share, so that the picture stands
exactly over the slide: output pixel (i, j) covers level-0 columns ``i·W/w … (i+1)·W/w``.
"""

import logging
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_ncmi.core.errors import SlideReadError
from wsi_ncmi.slides.absent_tiles import find_absent_tiles
from wsi_ncmi.slides.base import LevelReader, Slide, background_colour
from wsi_ncmi.slides.regions import StoredRegions

_LOG = logging.getLogger(__name__)


def touched_cells(edges: NDArray[np.float64], start: int, stop: int) -> slice:
    """The cells that overlap the pixels [start, stop).

    Args:
        edges: float64 (n + 1,), ascending: cell i covers ``edges[i]`` to ``edges[i + 1]``.
        start: First pixel.
        stop: One behind the last pixel.
    """
    first = int(np.searchsorted(edges, start, side="right")) - 1
    last = int(np.searchsorted(edges, stop, side="left"))
    return slice(max(first, 0), min(last, len(edges) - 1))


def cell_shares(edges: NDArray[np.float64], cells: slice, start: int, stop: int) -> NDArray[np.float64]:
    """Length of the part of [start, stop) in each of some cells, in pixels: float64 (cells,)."""
    near: NDArray[np.float64] = np.diff(edges[cells.start : cells.stop + 1].clip(start, stop))
    return near


def cell_sums(
    block: NDArray[np.uint8], edges_y: NDArray[np.float64], edges_x: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Sums over the cells that a block touches.

    Args:
        block: uint8 (h, w, 3), at most 65,536 px a side: sums of a column are then exact in float32 wherever
            the edges fall between pixels.
        edges_y: float64 (rows + 1,), edges of the cells from the block's top, at least a pixel apart; what
            lies beyond the first and the last of them belongs to no cell.
        edges_x: float64 (columns + 1,), from its left side.

    Returns:
        float64 (rows, columns, 3).
    """
    height, width = block.shape[:2]
    down = _overlaps(edges_y, height, 1, np.float32)
    across = _overlaps(edges_x, width, 3, np.float64)
    lines = down @ block.reshape(height, width * 3).astype(np.float32)
    turned: NDArray[np.float64] = across @ lines.T.astype(np.float64, order="C")
    return turned.reshape(len(edges_x) - 1, 3, len(edges_y) - 1).transpose(2, 0, 1)


def _overlaps(edges: NDArray[np.float64], length: int, channels: int, dtype: type) -> Any:
    """Overlap of pixels with cells, sparse (cells · channels, length · channels), channels interleaved."""
    from scipy import sparse

    pixel = np.arange(length)
    first = np.searchsorted(edges, pixel, side="right") - 1
    cells = len(edges) - 1
    # A cell is at least as wide as a pixel: what the first one does not take, the next one does.
    ends = edges[np.minimum(first + 1, cells)]
    share = np.clip(ends - pixel, 0.0, 1.0)
    row = np.concatenate((first, first + 1))
    column = np.concatenate((pixel, pixel))
    weight = np.concatenate((share, 1.0 - share))
    used = (weight > 0.0) & (row >= 0) & (row < cells)
    channel = np.arange(channels)
    return sparse.csr_matrix(
        (
            np.repeat(weight[used].astype(dtype), channels),
            (
                (row[used, None] * channels + channel).ravel(),
                (column[used, None] * channels + channel).ravel(),
            ),
        ),
        shape=(cells * channels, length * channels),
    )


_BLOCK_PX = 1024
_SMALLEST_BLOCK_PX = 128
_UNREADABLE_GREY = 128
_MOST_FINER_PX = 1 << 24
_RUN_CELLS = 1 << 19


@dataclass(frozen=True)
class Overview:
    """The overview of a slide.

    Attributes:
        pixels: uint8 (h, w, 3) RGB; unreadable places are mid-grey.
        readable: bool (h, w); False where any part of the pixel's area could not be read.
        downsample_x: Level-0 pixels for one pixel of this picture along x.
        downsample_y: The same along y.
        note: Empty, or what was read of finer levels, as half a sentence for the ledger.
    """

    pixels: NDArray[np.uint8]
    readable: NDArray[np.bool_]
    downsample_x: float
    downsample_y: float
    note: str = ""


def thumbnail(slide: Slide, max_px: int = 1024) -> NDArray[np.uint8]:
    """A thumbnail of a slide.

    Args:
        slide: An open slide.
        max_px: Longer side of the result; a smaller slide keeps its size.

    Returns:
        uint8 (h, w, 3) RGB; unreadable places are mid-grey (never white, the colour of glass).

    Raises:
        SlideReadError: Nothing at all can be read.
    """
    if max_px < 1:
        raise ValueError(f"max_px must be at least 1, not {max_px}.")
    scale = min(1.0, max_px / max(slide.width_px, slide.height_px))
    width, height = max(1, round(slide.width_px * scale)), max(1, round(slide.height_px * scale))
    return read_overview(slide, width, height).pixels


def read_overview(slide: Slide, width_px: int, height_px: int) -> Overview:
    """Reads the whole slide as a picture of the given size.

    The coarsest level that is at least as fine as the picture is read block by block. A region that can't
    be read is taken from the next finer level; what no level has costs its own place only and is marked.

    Args:
        slide: An open slide.
        width_px: Width of the picture, at most the slide's.
        height_px: Height of the picture, at most the slide's.

    Returns:
        The picture with the mask of its readable pixels.

    Raises:
        ValueError: The size is not between 1 and the slide's own.
        SlideReadError: Nothing at all can be read; the first failure.
    """
    if not (1 <= width_px <= slide.width_px and 1 <= height_px <= slide.height_px):
        raise ValueError(
            f"An overview of {slide.width_px} × {slide.height_px} px can't have {width_px} × {height_px} px."
        )
    level = max(
        number
        for number, candidate in enumerate(slide.levels)
        if number == 0 or (candidate.width_px >= width_px and candidate.height_px >= height_px)
    )
    with StoredRegions(slide, level, 1.0) as reader:
        return _AreaMean(slide, level, width_px, height_px, reader).result()


class _AreaMean:
    """Averages a level band by band of blocks.

    Only the cells that a block's border cuts are carried on as sums, to the block on the right and to the
    next band; all others are rounded to bytes at once. Sums of the whole picture in float64 would take 530 MB
    for a slide of 150,000² px at 8 µm.
    """

    def __init__(self, slide: Slide, number: int, width: int, height: int, reader: LevelReader) -> None:
        self._slide, self._number, self._level = slide, number, slide.levels[number]
        self._reader = reader
        # Placed by the mean of both downsamples, as readers do.
        self._down = (self._level.downsample_x + self._level.downsample_y) / 2
        self._edges_x = np.linspace(0.0, self._level.width_px, width + 1)
        self._edges_y = np.linspace(0.0, self._level.height_px, height + 1)
        self._pixels = np.empty((height, width, 3), dtype=np.uint8)
        self._broken = np.zeros((height, width), dtype=bool)
        # Sums of the one row of cells that the border between two bands cuts.
        self._row = np.zeros((width, 3), dtype=np.float64)
        self._absent = find_absent_tiles(slide, number)
        self._background = np.array(background_colour(slide.properties), dtype=np.float64)
        self._read_any = False
        self._failure: SlideReadError | None = None
        self._finer_px = 0

    def result(self) -> Overview:
        """Reads everything.

        Raises:
            SlideReadError: Nothing can be read.
        """
        for y in range(0, self._level.height_px, _BLOCK_PX):
            self._band(y, min(_BLOCK_PX, self._level.height_px - y))
        if self._failure is not None:
            if not self._read_any:
                raise self._failure
            _LOG.warning("%s (seen in the overview)", self._failure)
        self._pixels[self._broken] = _UNREADABLE_GREY
        height, width = self._broken.shape
        return Overview(
            self._pixels,
            ~self._broken,
            self._slide.width_px / width,
            self._slide.height_px / height,
            self._note(),
        )

    def _note(self) -> str:
        if not self._finer_px:
            return ""
        share = 100 * self._finer_px / (self._level.width_px * self._level.height_px)
        level = f"the level of {self._level}"
        return f"{share:.2g} % of {level} can't be read and was taken from finer ones ({self._failure})"

    def _band(self, y: int, height: int) -> None:
        rows = touched_cells(self._edges_y, y, y + height)
        cut = int(self._edges_y[rows.stop] > y + height)
        column = np.zeros((rows.stop - rows.start, 3), dtype=np.float64)
        x, width = 0, 0
        while (x := x + width) < self._level.width_px:
            width = self._block_width(x, y, height)
            columns = touched_cells(self._edges_x, x, x + width)
            cells = self._sums(x, y, width, height)
            cells[:, 0] += column
            if self._edges_x[columns.stop] > x + width:  # the block on the right completes these cells
                column, columns = cells[:, -1].copy(), slice(columns.start, columns.stop - 1)
                cells = cells[:, :-1]
            else:
                column = np.zeros_like(column)
            cells[0] += self._row[columns]
            self._row[columns] = cells[-1] if cut else 0.0
            self._round(cells[: len(cells) - cut], slice(rows.start, rows.stop - cut), columns)

    def _block_width(self, x: int, y: int, height: int) -> int:
        """A block's width; absent tiles side by side are taken together as far as memory allows."""
        rest = self._level.width_px - x
        width = min(_BLOCK_PX, rest)
        cells_a_px = len(self._edges_x) / self._level.width_px * len(self._edges_y) / self._level.height_px
        while (
            self._absent is not None
            and width < rest
            and width * height * cells_a_px < _RUN_CELLS
            and self._absent.cover(x, y, width, height)
        ):
            longer = min(2 * width, rest)
            if not self._absent.cover(x, y, longer, height):
                break
            width = longer
        return width

    def _round(self, sums: NDArray[np.float64], rows: slice, columns: slice) -> None:
        sides_y = np.diff(self._edges_y[rows.start : rows.stop + 1])
        sides_x = np.diff(self._edges_x[columns.start : columns.stop + 1])
        sums /= (sides_y[:, None] * sides_x)[:, :, None]
        sums += 0.5  # means of bytes need no limits
        self._pixels[rows, columns] = sums.astype(np.uint8)

    def _cells(self, x: int, y: int, width: int, height: int) -> tuple[slice, slice]:
        return touched_cells(self._edges_y, y, y + height), touched_cells(self._edges_x, x, x + width)

    def _sums(self, x: int, y: int, width: int, height: int) -> NDArray[np.float64]:
        """Sums over the cells of a block, (rows, columns, 3); what can't be read adds nothing."""
        rows, columns = self._cells(x, y, width, height)
        if self._absent is not None and self._absent.cover(x, y, width, height):
            # Background without a stored pixel: a slide without a pyramid has thousands of such blocks.
            shares_y = cell_shares(self._edges_y, rows, y, y + height)
            shares_x = cell_shares(self._edges_x, columns, x, x + width)
            return np.multiply.outer(np.outer(shares_y, shares_x), self._background)
        corner = round(x * self._down), round(y * self._down)
        try:
            block = self._reader.read(x, y, x + width, y + height).pixels
        except SlideReadError:
            # Slides' own readers pass some damage over: only what they can't read either is broken.
            try:
                block = self._slide.read_region(*corner, self._number, width, height)
            except SlideReadError as error:
                self._failure = self._failure or error
                return self._parts(x, y, width, height)
        self._read_any = True
        return self._cell_sums(block, x, y)

    def _cell_sums(self, block: NDArray[np.uint8], x: int, y: int) -> NDArray[np.float64]:
        rows, columns = self._cells(x, y, block.shape[1], block.shape[0])
        return cell_sums(
            block,
            self._edges_y[rows.start : rows.stop + 1] - y,
            self._edges_x[columns.start : columns.stop + 1] - x,
        )

    def _finer_block(self, x: int, y: int, width: int, height: int) -> NDArray[np.uint8] | None:
        """A block as the mean of the next finer level that can be read there; None where none can."""
        for number in reversed(range(self._number)):
            fine = self._slide.levels[number]
            across, down = fine.width_px / self._level.width_px, fine.height_px / self._level.height_px
            box = x * across, y * down, (x + width) * across, (y + height) * down
            left, top = math.floor(box[0]), math.floor(box[1])
            right, bottom = min(math.ceil(box[2]), fine.width_px), min(math.ceil(box[3]), fine.height_px)
            if (right - left) * (bottom - top) > _MOST_FINER_PX:
                return None
            scale = (fine.downsample_x + fine.downsample_y) / 2
            corner = round(left * scale), round(top * scale)
            try:
                part = self._slide.read_region(*corner, number, right - left, bottom - top)
            except SlideReadError:
                continue
            inside = box[0] - left, box[1] - top, min(box[2], right) - left, min(box[3], bottom) - top
            picture = Image.fromarray(part).resize((width, height), Image.Resampling.BOX, box=inside)
            return np.asarray(picture)
        return None

    def _parts(self, x: int, y: int, width: int, height: int) -> NDArray[np.float64]:
        """A block that can't be read as a whole, in quarters; the smallest of them are marked as broken."""
        rows, columns = self._cells(x, y, width, height)
        cells = np.zeros((rows.stop - rows.start, columns.stop - columns.start, 3), dtype=np.float64)
        half = _half(max(width, height))
        if half < _SMALLEST_BLOCK_PX:
            block = self._finer_block(x, y, width, height)
            if block is None:
                self._broken[rows, columns] = True
                return cells
            self._read_any = True
            self._finer_px += width * height
            return self._cell_sums(block, x, y)
        for top in range(y, y + height, half):
            for left in range(x, x + width, half):
                wide, high = min(half, x + width - left), min(half, y + height - top)
                down, across = self._cells(left, top, wide, high)
                cells[
                    down.start - rows.start : down.stop - rows.start,
                    across.start - columns.start : across.stop - columns.start,
                ] += self._sums(left, top, wide, high)
        return cells


def _half(side: int) -> int:
    """Half of the power of two that a block's longer side fills: quarters then fall on stored tiles."""
    return (1 << (side - 1).bit_length()) // 2
