"""The second reader: tiffslide (tifffile and fsspec), for what OpenSlide refuses and for remote addresses."""

import threading
import warnings
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import SlideOpenError
from wsi_ncmi.slides.base import Level
from wsi_ncmi.slides.clipped import ClippedSlide
from wsi_ncmi.slides.jpeg2000 import HEAD_BYTES, TIFF_JPEG2000, holds_ycbcr, jpeg2000_frame
from wsi_ncmi.slides.ome import OmeError, find_slide_image, is_ome

_OPENING = threading.Lock()
# TIFF 6.0, PhotometricInterpretation: white-is-zero, CMYK, CIE L*a*b*; PlanarConfiguration: separate planes.
_NOT_RGB = (0, 5, 8)
_SEPARATE_PLANES = 2
# Old-style JPEG, of which tifffile decodes whole files alone.
_OLD_JPEG = (6,)


class TiffSlideSlide(ClippedSlide):
    """A slide read through tiffslide.

    tiffslide fills absent tiles with black, which would pass for tissue: they are made transparent here, so
    that they get the background colour as with OpenSlide.
    """

    def __init__(self, source: Path | str) -> None:
        from tiffslide import TiffSlide

        path = Path(PurePosixPath(urlsplit(source).path).name) if isinstance(source, str) else source
        # tiffslide warns about formats that it knows in part; catch_warnings is not safe in threads.
        with _OPENING, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._handle: Any = TiffSlide(source)
            try:
                _check_ome(self._handle.ts_tifffile.pages)
                raw: Mapping[str, Any] = self._handle.properties
                sizes = [(int(w), int(h)) for w, h in self._handle.level_dimensions]
                pages = self._pages(raw)
                self._absent = [_absent_tiles(page) for page in pages]
                check_samples(pages[0])
                if "aperio" not in str(raw.get("tiffslide.vendor")):
                    self._check_colours(pages[0])
                width, height = sizes[0]
                super().__init__(
                    path,
                    reader="tiffslide",
                    vendor=str(raw.get("tiffslide.vendor") or "generic-tiff").lower(),
                    levels=[Level(w, h, width / max(w, 1), height / max(h, 1)) for w, h in sizes],
                    properties=_openslide_names(raw),
                )
            except BaseException:
                self._handle.close()
                raise
        self._axes = str(raw["tiffslide.series-axes"])

    def _pages(self, raw: Mapping[str, Any]) -> list[Any]:
        series = self._handle.ts_tifffile.series[raw["tiffslide.series-index"]]
        return [level[0] for level in series.levels]

    def _check_colours(self, page: Any) -> None:
        """Refuses JPEG 2000 in YCbCr, which tifffile gives as if it were RGB, and what may be either."""
        stored = next((place for place, size in enumerate(page.databytecounts) if size), None)
        if int(page.compression) not in TIFF_JPEG2000 or stored is None:
            return
        file = self._handle.ts_tifffile.filehandle
        file.seek(page.dataoffsets[stored])
        head = file.read(HEAD_BYTES)
        if holds_ycbcr(head, int(page.compression), int(page.photometric)) and set(
            jpeg2000_frame(head)[1]
        ) == {(1, 1)}:
            raise SlideOpenError("its JPEG 2000 tiles are YCbCr, of which it makes no RGB")

    def _read_inside(
        self, level: int, left: int, top: int, width_px: int, height_px: int
    ) -> NDArray[np.uint8]:
        array = self._handle.zarr_group
        array = array[str(level)] if hasattr(array, "keys") else array
        box = slice(top, top + height_px), slice(left, left + width_px)
        pixels = np.asarray(array[(slice(None), *box)] if self._axes == "CYX" else array[box])
        if self._axes == "CYX":
            pixels = np.moveaxis(pixels, 0, 2)
        elif self._axes == "YX":
            pixels = np.repeat(pixels[:, :, None], 3, axis=2)
        alpha = (
            pixels[:, :, 3:4] if pixels.shape[2] == 4 else np.full((height_px, width_px, 1), 255, np.uint8)
        )
        inside = np.concatenate([pixels[:, :, :3], alpha], axis=2)
        _clear_absent(inside[:, :, 3], self._absent[level], left, top)
        return inside

    def _close(self) -> None:
        self._handle.close()


def _check_ome(pages: Any) -> None:
    """Refuses an OME-TIFF whose slide is not what tiffslide shows, before its XML is parsed there."""
    if not is_ome(pages[0].description):
        return
    directories = [
        SimpleNamespace(
            width_px=page.imagewidth, height_px=page.imagelength, samples=page.samplesperpixel,
            photometric=int(page.photometric),
        )
        for page in pages
    ]  # fmt: skip
    try:
        chosen = find_slide_image(pages[0].description, directories)
    except OmeError as error:
        raise SlideOpenError(str(error)) from error
    if chosen is not None and not chosen.is_first:
        raise SlideOpenError("its first image is not the slide; only the reader tifffile takes another one")


def check_samples(page: Any) -> None:
    """Raises SlideOpenError unless the samples of tifffile's page are 8-bit RGB or grey."""
    import tifffile

    compression = int(page.compression)
    if compression in _OLD_JPEG or compression not in tifffile.TIFF.DECOMPRESSORS:
        raise SlideOpenError(f"no decoder is here for its compression {compression}")
    samples, dtype, photometric = int(page.samplesperpixel), str(page.dtype), int(page.photometric)
    if dtype != "uint8" or samples not in (1, 3, 4) or photometric in _NOT_RGB:
        raise SlideOpenError(
            f"its pixels are {samples} × {dtype} of photometric kind {photometric}, not 8-bit RGB or grey"
        )


def _absent_tiles(page: Any) -> tuple[NDArray[np.bool_], int, int] | None:
    """The tiles of a level that are not stored, with the tiles' width and height; None when all are there."""
    if not page.is_tiled or int(page.planarconfig or 1) == _SEPARATE_PLANES:
        return None
    missing = np.asarray(page.databytecounts) == 0
    if not missing.any():
        return None
    columns = -(-int(page.imagewidth) // int(page.tilewidth))
    rows = -(-int(page.imagelength) // int(page.tilelength))
    return missing[: rows * columns].reshape(rows, columns), int(page.tilewidth), int(page.tilelength)


def _clear_absent(
    alpha: NDArray[np.uint8], absent: tuple[NDArray[np.bool_], int, int] | None, x0: int, y0: int
) -> None:
    if absent is None:
        return
    missing, tile_width, tile_height = absent
    rows = (np.arange(y0, y0 + alpha.shape[0]) // tile_height)[:, None]
    columns = (np.arange(x0, x0 + alpha.shape[1]) // tile_width)[None, :]
    alpha[missing[rows, columns]] = 0


def _openslide_names(raw: Mapping[str, Any]) -> dict[str, str]:
    named = {
        key.replace("tiffslide.", "openslide.", 1): str(value)
        for key, value in raw.items()
        if value is not None
    }
    if "tiff.ResolutionUnit" in named:
        named["tiff.ResolutionUnit"] = named["tiff.ResolutionUnit"].lower()
    # tiffslide computes mpp from the TIFF tags where the vendor gives none; that link of the chain is ours,
    # with its checks. Philips files carry both and the vendor's spacing has replaced the computed value.
    if "tiff.XResolution" in named and "philips" not in named.get("openslide.vendor", "").lower():
        named.pop("openslide.mpp-x", None)
        named.pop("openslide.mpp-y", None)
    return named
