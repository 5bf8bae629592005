"""Reads parts of a slide at a higher resolution than its overview, on a grid that divides its pixels."""

import math
from contextlib import AbstractContextManager

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_ncmi.slides import LevelReader, OpenLevel, Overview, Slide


class HighResReader(AbstractContextManager["HighResReader"]):
    """Reads parts of a slide, each pixel of the overview divided into ``factor`` × ``factor``.

    Use it as a context manager; the level is opened at the first part.

    Args:
        slide: The open slide.
        overview: The overview.
        pixel_um: Width and height of its pixels.
        fine_um: Target width of the finer pixels; none is finer than the slide's own.
        open_level: Opens a level for reading parts of it.

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
        open_level: OpenLevel = LevelReader,
    ) -> None:
        self._slide, self._open_level = slide, open_level
        self._downsample_x, self._downsample_y = overview.downsample_x, overview.downsample_y
        down = min(overview.downsample_x, overview.downsample_y)
        self.factor = max(1, min(round(max(pixel_um) / fine_um), math.floor(down + 1e-9)))
        # An overview is a fraction of a pixel wider than the level whose pixels it counts.
        self.level = max(
            number
            for number, view in enumerate(slide.levels)
            if number == 0 or max(view.downsample_x, view.downsample_y) <= down / self.factor + 1e-9
        )
        self._reader: LevelReader | None = None

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
        down, across = self._downsample_y / view.downsample_y, self._downsample_x / view.downsample_x
        if self._reader is None:
            self._reader = self._open_level(self._slide, self.level, min(down, across) / self.factor)
        left, right = self._ends(columns, across, view.width_px)
        top, bottom = self._ends(rows, down, view.height_px)
        around = min(down, across) / self.factor  # the filter reaches as far beyond
        part = self._reader.read(
            max(0, math.floor(left - around)),
            max(0, math.floor(top - around)),
            min(view.width_px, math.ceil(right + around)),
            min(view.height_px, math.ceil(bottom + around)),
        )
        height, width = part.pixels.shape[:2]
        box = (
            (left - part.left) / part.factor,
            (top - part.top) / part.factor,
            min((right - part.left) / part.factor, float(width)),
            min((bottom - part.top) / part.factor, float(height)),
        )
        size = ((columns.stop - columns.start) * self.factor, (rows.stop - rows.start) * self.factor)
        picture = Image.fromarray(part.pixels).resize(size, Image.Resampling.BILINEAR, box=box)
        return np.asarray(picture)

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the level that was opened; the slide stays open."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _ends(self, part: slice, scale: float, most: int) -> tuple[float, float]:
        """Start and end of a part of the overview, in pixels of the level."""
        return part.start * scale, min(part.stop * scale, float(most))
