"""A part of a slide at a finer resolution than its overview, on a grid that divides the overview's pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.slides import Overview, Slide
from wsi_ncmi.slides.cells import cell_sums

__all__ = ["CloserLook"]


@dataclass(frozen=True)
class CloserLook:
    """Reads parts of a slide, each pixel of the overview divided into ``factor`` × ``factor``.

    Attributes:
        slide: The open slide.
        downsample_x: Level-0 pixels per pixel of the overview along x.
        downsample_y: The same along y.
        factor: Finer pixels in one of the overview, along each side.
        level: The level that is read, the coarsest one that is fine enough.
    """

    slide: Slide
    downsample_x: float
    downsample_y: float
    factor: int
    level: int

    @classmethod
    def at(
        cls, slide: Slide, overview: Overview, pixel_um: tuple[float, float], fine_um: float
    ) -> CloserLook:
        """Chooses the division nearest to a resolution, but no pixel finer than the slide's own.

        Args:
            slide: The open slide.
            overview: The slide in small.
            pixel_um: Width and height of its pixels.
            fine_um: Wished width of the finer pixels.
        """
        down = min(overview.downsample_x, overview.downsample_y)
        factor = max(1, min(round(max(pixel_um) / fine_um), math.floor(down + 1e-9)))
        # An overview is a fraction of a pixel wider than the level whose pixels it counts.
        level = max(
            number
            for number, view in enumerate(slide.levels)
            if number == 0 or max(view.downsample_x, view.downsample_y) <= down / factor + 1e-9
        )
        return cls(slide, overview.downsample_x, overview.downsample_y, factor, level)

    def read(self, rows: slice, columns: slice) -> NDArray[np.float32]:
        """Area means of the level's pixels under each finer pixel.

        Args:
            rows: Rows of the overview, inside it.
            columns: Its columns.

        Returns:
            float32 (rows · factor, columns · factor, 3), RGB 0 to 255.

        Raises:
            SlideReadError: It can't be read.
        """
        view = self.slide.levels[self.level]
        edges_y = self._edges(rows, self.downsample_y / view.downsample_y, view.height_px)
        edges_x = self._edges(columns, self.downsample_x / view.downsample_x, view.width_px)
        top, left = math.floor(edges_y[0]), math.floor(edges_x[0])
        height, width = math.ceil(edges_y[-1]) - top, math.ceil(edges_x[-1]) - left
        # Placed by the mean of both downsamples, as readers do.
        down = (view.downsample_x + view.downsample_y) / 2
        block = self.slide.read_region(round(left * down), round(top * down), self.level, width, height)
        sums = cell_sums(block, edges_y - top, edges_x - left)
        area = np.outer(np.diff(edges_y), np.diff(edges_x))
        means: NDArray[np.float32] = (sums / area[:, :, None]).astype(np.float32)
        return means

    def _edges(self, part: slice, scale: float, most: int) -> NDArray[np.float64]:
        count = (part.stop - part.start) * self.factor
        edges = part.start * scale + np.arange(count + 1) * (scale / self.factor)
        inside: NDArray[np.float64] = edges.clip(0.0, float(most))
        return inside
