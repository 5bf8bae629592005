"""A slide in small, by exact area averaging of a pyramid level in bounded memory.

Only pyramid levels are read, never the embedded thumbnail, label or macro image. Each output pixel is the
mean of the level's pixels under it, weighted with the area that they share, so that the picture stands
exactly over the slide: output pixel (i, j) covers level-0 columns ``i·W/w … (i+1)·W/w``.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.errors import SlideReadError
from wsi_ncmi.slides.base import Slide

__all__ = ["Overview", "read_overview", "thumbnail"]

_LOG = logging.getLogger(__name__)
_BLOCK_PX = 1024
_SMALLEST_BLOCK_PX = 128
_STRIP_ROWS = 64
_UNREADABLE_GREY = 128


@dataclass(frozen=True)
class Overview:
    """A slide in small.

    Attributes:
        pixels: uint8 (h, w, 3) RGB; unreadable places are mid-grey.
        readable: bool (h, w); False where any part of the pixel's area could not be read.
        downsample_x: Level-0 pixels for one pixel of this picture along x.
        downsample_y: The same along y.
    """

    pixels: NDArray[np.uint8]
    readable: NDArray[np.bool_]
    downsample_x: float
    downsample_y: float


def thumbnail(slide: Slide, max_px: int = 1024) -> NDArray[np.uint8]:
    """The slide in small, for pictures.

    Args:
        slide: An open slide.
        max_px: Longer side of the result; a smaller slide keeps its size.

    Returns:
        uint8 (h, w, 3) RGB; unreadable places are mid-grey (never white, which looks like glass).

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
    be read costs its own place only and is marked.

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
    mean = _AreaMean(slide, level, width_px, height_px)
    for y in range(0, slide.levels[level].height_px, _BLOCK_PX):
        for x in range(0, slide.levels[level].width_px, _BLOCK_PX):
            mean.add(x, y, _BLOCK_PX)
    return mean.result()


class _AreaMean:
    def __init__(self, slide: Slide, number: int, width: int, height: int) -> None:
        self._slide, self._number, self._level = slide, number, slide.levels[number]
        self._edges_x = np.linspace(0.0, self._level.width_px, width + 1)
        self._edges_y = np.linspace(0.0, self._level.height_px, height + 1)

        self._sums = np.zeros((height, width, 3), dtype=np.float64)
        self._broken = np.zeros((height, width), dtype=bool)
        self._read_any = False
        self._failure: SlideReadError | None = None

    def add(self, x: int, y: int, size: int) -> None:
        """Adds the block at (x, y) in pixels of the level; splits it where it can't be read as a whole."""
        width, height = min(size, self._level.width_px - x), min(size, self._level.height_px - y)
        if width <= 0 or height <= 0:
            return
        columns, rows = _touched(self._edges_x, x, x + width), _touched(self._edges_y, y, y + height)
        try:
            block = self._slide.read_region(
                round(x * (self._level.downsample_x + self._level.downsample_y) / 2),
                round(y * (self._level.downsample_x + self._level.downsample_y) / 2),
                self._number,
                width,
                height,
            )
        except SlideReadError as error:
            self._failure = self._failure or error
            if size > _SMALLEST_BLOCK_PX:
                half = size // 2
                for dx, dy in ((0, 0), (half, 0), (0, half), (half, half)):
                    if dx < width and dy < height:
                        self.add(x + dx, y + dy, half)
            else:
                self._broken[rows, columns] = True
            return
        self._read_any = True
        # The larger product is in float32: sums of at most 1024 bytes are exact integers there wherever the
        # edges fall between pixels.
        flat = block.reshape(height, width * 3).astype(np.float32)
        lines = _interval_sums(flat, self._edges_y[rows.start : rows.stop + 1] - y).reshape(-1, width, 3)
        turned = np.ascontiguousarray(lines.transpose(1, 0, 2), dtype=np.float64).reshape(width, -1)
        cells = _interval_sums(turned, self._edges_x[columns.start : columns.stop + 1] - x)
        self._sums[rows, columns] += cells.reshape(len(cells), -1, 3).transpose(1, 0, 2)

    def result(self) -> Overview:
        """The picture, after all blocks were added."""
        if self._failure is not None:
            if not self._read_any:
                raise self._failure
            _LOG.warning("%s (seen in the overview; its place is marked)", self._failure)
        area = np.diff(self._edges_y)[:, None, None] * np.diff(self._edges_x)[None, :, None]
        pixels = np.floor(self._sums / area + 0.5).clip(0, 255).astype(np.uint8)
        pixels[self._broken] = _UNREADABLE_GREY
        height, width = self._broken.shape
        return Overview(pixels, ~self._broken, self._slide.width_px / width, self._slide.height_px / height)


def _touched(edges: NDArray[np.float64], start: int, stop: int) -> slice:
    """The output pixels whose area overlaps [start, stop)."""
    first = int(np.searchsorted(edges, start, side="right")) - 1
    last = int(np.searchsorted(edges, stop, side="left"))
    return slice(max(first, 0), min(last, len(edges) - 1))


def _interval_sums(values: NDArray[np.floating], edges: NDArray[np.float64]) -> NDArray[np.floating]:
    """Sums of rows between fractional edges, a row that an edge cuts counted by its share.

    Args:
        values: (n, m) float; row i covers [i, i + 1).
        edges: (k + 1,) ascending, in rows; parts outside the n rows count nothing.

    Returns:
        (k, m) of the same dtype.
    """
    sums = np.zeros((len(edges) - 1, values.shape[1]), dtype=values.dtype)
    # Matrix products of a few rows at a time: fast in BLAS, and the weights are hardly ever zero.
    for start in range(0, len(values), _STRIP_ROWS):
        strip = values[start : start + _STRIP_ROWS]
        touched = _touched(edges, start, start + len(strip))
        near = edges[touched.start : touched.stop + 1, None]
        rows = np.arange(start, start + len(strip), dtype=np.float64)[None, :]
        weights = (np.minimum(near[1:], rows + 1.0) - np.maximum(near[:-1], rows)).clip(0.0, None)
        sums[touched] += weights.astype(values.dtype) @ strip
    return sums
