"""Reads parts of a slide at a higher resolution than its overview, on a grid that divides its pixels."""

import math
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_ncmi.slides import Overview, Slide, StoredRegions


class BoxReader:
    """Reads parts of a level at any size; the level is opened at the first one.

    Use it as a context manager.

    Args:
        slide: The open slide.
        level: Number of the level.
        pixel: Pixels of the level for one of the result, along the finer axis.
    """

    def __init__(self, slide: Slide, level: int, pixel: float) -> None:
        self._slide = slide
        self.level, self._pixel = level, pixel
        self._reader: StoredRegions | None = None

    def read_box(self, box: tuple[float, float, float, float], size: tuple[int, int]) -> NDArray[np.uint8]:
        """A part of the level, each pixel the mean under a triangle of twice its width.

        Args:
            box: Left, top, right and bottom in pixels of the level, inside it.
            size: Width and height of the result.

        Returns:
            uint8 (height, width, 3), RGB.

        Raises:
            SlideReadError: It can't be read.
        """
        view, around = self._slide.levels[self.level], self._pixel  # the filter reaches as far beyond
        left, top, right, bottom = box
        if self._reader is None:
            self._reader = StoredRegions(self._slide, self.level, max(1.0, around))
        part = self._reader.read(
            max(0, math.floor(left - around)),
            max(0, math.floor(top - around)),
            min(view.width_px, math.ceil(right + around)),
            min(view.height_px, math.ceil(bottom + around)),
        )
        height, width = part.pixels.shape[:2]
        inner = (
            (left - part.left) / part.factor,
            (top - part.top) / part.factor,
            min((right - part.left) / part.factor, float(width)),
            min((bottom - part.top) / part.factor, float(height)),
        )
        picture = Image.fromarray(part.pixels).resize(size, Image.Resampling.BILINEAR, box=inner)
        return np.asarray(picture)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the level that was opened; the slide stays open."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None


class HighResReader(BoxReader):
    """Reads parts of a slide, each pixel of the overview divided into ``factor`` × ``factor``.

    Use it as a context manager; the level is opened at the first part.

    Args:
        slide: The open slide.
        overview: The overview.
        pixel_um: Width and height of its pixels.
        fine_um: Target width of the finer pixels; none is finer than the slide's own.

    Attributes:
        factor: Finer pixels in one of the overview, along each side.
        level: The level that is read, the coarsest one that is fine enough.
    """

    def __init__(
        self,
        slide: Slide,
        overview: Overview,
        pixel_um: tuple[float, float],
        fine_um: float,
    ) -> None:
        down = min(overview.downsample_x, overview.downsample_y)
        self.factor = max(1, min(round(max(pixel_um) / fine_um), math.floor(down + 1e-9)))
        # An overview is a fraction of a pixel wider than the level whose pixels it counts.
        level = max(
            number
            for number, view in enumerate(slide.levels)
            if number == 0 or max(view.downsample_x, view.downsample_y) <= down / self.factor + 1e-9
        )
        view = slide.levels[level]
        self._down, self._across = (
            overview.downsample_y / view.downsample_y,
            overview.downsample_x / view.downsample_x,
        )
        super().__init__(slide, level, min(self._down, self._across) / self.factor)

    def read(self, rows: slice, columns: slice) -> NDArray[np.uint8]:
        """The level in finer pixels, each the mean under a triangle of twice its width.

        Args:
            rows: Rows of the overview, inside it.
            columns: Its columns.

        Returns:
            uint8 (rows · factor, columns · factor, 3), RGB.

        Raises:
            SlideReadError: It can't be read.
        """
        view = self._slide.levels[self.level]
        left, right = self._ends(columns, self._across, view.width_px)
        top, bottom = self._ends(rows, self._down, view.height_px)
        size = ((columns.stop - columns.start) * self.factor, (rows.stop - rows.start) * self.factor)
        return self.read_box((left, top, right, bottom), size)

    def _ends(self, part: slice, scale: float, most: int) -> tuple[float, float]:
        """Start and end of a part of the overview, in pixels of the level."""
        return part.start * scale, min(part.stop * scale, float(most))
