"""The last reader: flat PNG, JPEG and TIFF images through Pillow, one level, bounded in size."""

import threading
import warnings
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from wsi_ncmi.core.errors import SlideOpenError
from wsi_ncmi.slides.base import Level
from wsi_ncmi.slides.clipped import ClippedSlide

MAX_IMAGE_PX = 13376 * 13376
"""Largest flat image in pixels (just below Pillow's own refusal): it is decoded whole, 512 MiB as RGB."""

_FORMATS = ("PNG", "JPEG", "TIFF")
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "YCbCr")
_UNITS = {1: "none", 2: "inch", 3: "centimeter"}
_PILLOW_LOCK = threading.Lock()


class FlatImageSlide(ClippedSlide):
    """A flat image as a slide of one level; PNG and JPEG tell no believable resolution: mpp must be given.

    The image is decoded at the first read and kept; EXIF orientation and colour profiles are left alone.
    """

    def __init__(self, path: Path) -> None:
        with _opened(path) as image:
            kind, mode, (width, height) = str(image.format), image.mode, image.size
            tags = dict(getattr(image, "tag_v2", {})) if kind == "TIFF" else {}
        if mode not in _MODES:
            raise SlideOpenError(f"its pixels are of the kind {mode}, not 8-bit RGB or grey")
        if width * height > MAX_IMAGE_PX:
            raise SlideOpenError(
                f"its {width} × {height} px are more than a flat image may have ({MAX_IMAGE_PX} px); "
                "convert it to a tiled pyramidal TIFF"
            )
        properties = {"openslide.vendor": "image", "tiff.ImageDescription": str(tags.get(270, ""))}
        if 282 in tags and 283 in tags:
            properties["tiff.XResolution"] = repr(float(tags[282]))
            properties["tiff.YResolution"] = repr(float(tags[283]))
            properties["tiff.ResolutionUnit"] = _UNITS.get(int(tags.get(296, 2)), "none")
        super().__init__(
            path,
            reader="image",
            vendor="image",
            levels=[Level(width, height, 1.0, 1.0)],
            properties=properties,
        )
        self._pixels: NDArray[np.uint8] | None = None
        self._lock = threading.Lock()

    def _decoded(self) -> NDArray[np.uint8]:
        with self._lock:
            if self._pixels is None:
                with _opened(self.path) as image:
                    if image.format == "JPEG":
                        # Pillow fills in what damaged data lack and says nothing. Reduced, this is cheap.
                        content = self.path.read_bytes()
                        simplejpeg.decode_jpeg(content, "GRAY", min_height=1, min_width=1, min_factor=8)
                    transparent = image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info
                    self._pixels = np.asarray(image.convert("RGBA" if transparent else "RGB"))
            return self._pixels

    def _read_inside(
        self, level: int, left: int, top: int, width_px: int, height_px: int
    ) -> NDArray[np.uint8]:
        return self._decoded()[top : top + height_px, left : left + width_px]

    def _close(self) -> None:
        self._pixels = None


def _opened(path: Path) -> Image.Image:
    # Pillow warns at half of our bound, and of odd tags; the size is checked from the header, before anything
    # is decoded.
    with _PILLOW_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return Image.open(path, formats=_FORMATS)
        except Image.DecompressionBombError:
            raise SlideOpenError(
                f"it has more pixels than a flat image may have ({MAX_IMAGE_PX} px); "
                "convert it to a tiled pyramidal TIFF"
            ) from None
        except UnidentifiedImageError:
            raise SlideOpenError("it is no PNG, JPEG or TIFF image") from None
