"""An optional reader: Philips iSyntax through libisyntax (package pyisyntax)."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import SlideOpenError
from wsi_ncmi.slides.base import Level
from wsi_ncmi.slides.clipped import ClippedSlide

T = TypeVar("T")
# libisyntax keeps memory of the thread that it was set up in, and ends the process when another one reads
# (anibali/pyisyntax issue 4): one thread does all of a process's reading.
_THREAD = ThreadPoolExecutor(1, "isyntax")


def _there(work: Callable[[], T]) -> T:
    return _THREAD.submit(work).result()


class ISyntaxSlide(ClippedSlide):
    """A slide of Philips's scanners; label and macro image stay unread."""

    def __init__(self, path: Path) -> None:
        import isyntax

        file = path.open("rb")
        size = os.fstat(file.fileno()).st_size
        try:
            self._handle: Any = _there(lambda: isyntax.ISyntax(file, size))
        except Exception as error:
            file.close()  # which the library does in some cases only
            reason = str(error) or type(error).__name__
            raise SlideOpenError(f"libisyntax finds no sound iSyntax content in it ({reason})") from error
        try:
            levels, microns = _there(self._described)
            super().__init__(
                path, reader="isyntax", vendor="philips", levels=levels,
                properties={
                    f"openslide.mpp-{axis}": repr(size)
                    for axis, size in zip("xy", microns, strict=True)
                    if size
                },
            )  # fmt: skip
        except BaseException:
            _there(self._handle.close)
            raise

    def _described(self) -> tuple[list[Level], tuple[float, float]]:
        """Levels, whose sides are rounded up to whole blocks, and µm per pixel of the first one."""
        handle = self._handle
        shapes = zip(handle.level_dimensions, handle.level_downsamples, strict=True)
        levels = [Level(width, height, float(down), float(down)) for (width, height), down in shapes]
        return levels, (float(handle.mpp_x), float(handle.mpp_y))

    def _read_inside(
        self, level: int, left: int, top: int, width_px: int, height_px: int
    ) -> NDArray[np.uint8]:
        # Straight RGBA: places that the scanner left out are transparent.
        read = self._handle.read_region
        pixels: NDArray[np.uint8] = _there(lambda: read(left, top, width_px, height_px, level))
        return pixels

    def _close(self) -> None:
        _there(self._handle.close)
