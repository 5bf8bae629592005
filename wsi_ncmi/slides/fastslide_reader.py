"""An optional reader: Olympus VSI through fastslide, which is asked for nothing else.

It decodes JPEG with libjpeg-turbo's fast transform and without interpolation of colour. Against the decoding
of OpenSlide that is at most some grey levels, and at edges of colour some tens where colour is stored at half
the resolution (4:2:0): too much to stand in for another reader, and no displacement.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import SlideOpenError
from wsi_ncmi.slides.base import Level
from wsi_ncmi.slides.clipped import ClippedSlide

# Decoded tiles of one slide that are kept; regions of neighbours share tiles.
_CACHE_BYTES = 32 << 20


class FastSlideSlide(ClippedSlide):
    """The largest image of a file; its overview and label stay unread."""

    def __init__(self, path: Path) -> None:
        import fastslide

        try:
            self._handle: Any = fastslide.FastSlide.from_file_path(path, cache=_CACHE_BYTES)
        except RuntimeError as error:  # what follows is places in its sources
            raise SlideOpenError(re.split(r"\s+at \S+ \(src", str(error))[0]) from error
        try:
            images = self._handle.images
            self._image: Any = images.primary
            image = self._image
            if str(self._handle.dtype) != "uint8" or image.num_channels != 3:
                raise SlideOpenError(
                    f"its pixels are {image.num_channels} × {self._handle.dtype} (fluorescence?), "
                    "not 8-bit RGB"
                )
            if image.z_count > 1 or image.t_count > 1:
                raise SlideOpenError(
                    f"it holds {image.z_count} focal planes at {image.t_count} points in time; "
                    "export one of them"
                )
            mpp = zip("xy", image.mpp, strict=True)
            properties = {f"openslide.mpp-{axis}": repr(float(size)) for axis, size in mpp if size}
            width, height = image.dimensions
            more = len(images) - 1
            super().__init__(
                path, reader="fastslide", vendor=str(self._handle.format).lower(),
                levels=[
                    Level(w, h, width / max(w, 1), height / max(h, 1)) for w, h in image.level_dimensions
                ],
                properties=properties,
                note=f"The file holds {more} more images; the largest one, {width} × {height} px, is read."
                if more else "",
            )  # fmt: skip
        except BaseException:
            self._handle.close()
            raise

    def _read_inside(
        self, level: int, left: int, top: int, width_px: int, height_px: int
    ) -> NDArray[np.uint8]:
        image = self._image.read_region((left, top), level, (width_px, height_px))
        pixels: NDArray[np.uint8] = np.asarray(image.to_interleaved().numpy())
        return pixels

    def _close(self) -> None:
        self._handle.close()
