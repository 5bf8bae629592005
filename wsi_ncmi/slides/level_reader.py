"""How parts of a level are read for a closer look: what a faster way of reading has to give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.closing import Closing
from wsi_ncmi.slides.base import Slide

__all__ = ["LevelPart", "LevelReader", "OpenLevel"]


@dataclass(frozen=True, eq=False)  # arrays have no one truth value to compare by
class LevelPart:
    """A rectangle of a level.

    Attributes:
        pixels: uint8 (h, w, 3); holds at least what was asked for.
        left: Pixel of the level at which its left edge lies.
        top: The same of its upper edge.
        factor: Pixels of the level in one of these, along each side.
    """

    pixels: NDArray[np.uint8]
    left: int
    top: int
    factor: int = 1


class LevelReader(Closing):
    """Reads rectangles of one level through the slide's reader; use it as a context manager.

    Args:
        slide: The open slide; it has to stay open.
        level: Index of the level.
        most: By how much a rectangle may be reduced along each side, 1 or more.
    """

    def __init__(self, slide: Slide, level: int, most: float) -> None:
        self._slide, self._level = slide, level
        view = slide.levels[level]
        # Placed by the mean of both downsamples, as readers do.
        self._down = (view.downsample_x + view.downsample_y) / 2

    def read(self, left: int, top: int, right: int, bottom: int) -> LevelPart:
        """Reads a rectangle.

        Args:
            left: Left edge in pixels of the level, inside it as all edges.
            top: Upper edge.
            right: Behind the last column.
            bottom: Behind the last row.

        Raises:
            SlideReadError: It can't be read.
        """
        x, y = round(left * self._down), round(top * self._down)
        return LevelPart(self._slide.read_region(x, y, self._level, right - left, bottom - top), left, top)

    def close(self) -> None:
        """Gives up what was opened for reading; the slide stays open."""


OpenLevel = Callable[[Slide, int, float], LevelReader]
"""Opens a reader of a level from slide, level and largest reduction."""
