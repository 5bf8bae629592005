"""A slide whose reader is asked only for what lies inside a level, in pixels of that level."""

import math
from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.slides.base import Slide


class ClippedSlide(Slide):
    """Cuts requests to the level and leaves all beyond it transparent; the easiest base for a reader.

    A region is placed by the mean of both downsamples, as OpenSlide does.
    """

    def _read(
        self, x_level0: int, y_level0: int, level: int, width_px: int, height_px: int
    ) -> NDArray[np.uint8]:
        target = self.reader_levels[level]
        scale = (target.downsample_x + target.downsample_y) / 2
        left, top = math.floor(x_level0 / scale), math.floor(y_level0 / scale)
        x0, y0 = max(left, 0), max(top, 0)
        x1, y1 = min(left + width_px, target.width_px), min(top + height_px, target.height_px)
        result = np.zeros((height_px, width_px, 4), dtype=np.uint8)
        if x0 < x1 and y0 < y1:
            pixels = np.asarray(self._read_inside(level, x0, y0, x1 - x0, y1 - y0))
            shape = (y1 - y0, x1 - x0)
            if pixels.dtype != np.uint8 or pixels.shape not in ((*shape, 3), (*shape, 4)):
                raise ValueError(
                    f"the decoder gave {pixels.dtype} {pixels.shape}, not {shape} 8-bit RGB pixels"
                )
            part = result[y0 - top : y1 - top, x0 - left : x1 - left]
            part[:, :, 3] = 255
            part[:, :, : pixels.shape[2]] = pixels
        return result

    @abstractmethod
    def _read_inside(
        self, level: int, left: int, top: int, width_px: int, height_px: int
    ) -> NDArray[np.uint8]:
        """Reads a rectangle that lies inside a level: uint8 ``(height_px, width_px, 3)``, or 4 with alpha.

        Args:
            level: Index into :attr:`reader_levels`.
            left: Left edge in pixels of the level.
            top: Upper edge.
            width_px: Width, at least 1.
            height_px: Height, at least 1.
        """
