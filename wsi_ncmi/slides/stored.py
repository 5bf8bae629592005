"""The compressed tiles of one pyramid level, read by their offsets and proven to be the reader's pixels.

Only formats whose tiles are a plain grid are opened this way: Aperio, generic tiled TIFF, Philips and DICOM.
Others move or overlap their tiles (Ventana, Trestle, Leica's regions, Hamamatsu): their readers read them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import SlideOpenError, SlideReadError, plain_reason
from wsi_ncmi.slides.base import Slide
from wsi_ncmi.slides.dicom_colours import level_decoder
from wsi_ncmi.slides.dicom_frames import frame_of
from wsi_ncmi.slides.jpeg2000 import TIFF_JPEG2000
from wsi_ncmi.slides.pages_reader import silent
from wsi_ncmi.slides.tile_decoders import (
    Decoder,
    JpegDecoder,
    decode_cut,
    jpeg2000_decoder,
    jpeg_decoder,
    tiff_jpeg2000_decoder,
)

_VENDORS = ("aperio", "generic-tiff", "philips")
_JPEG, _APERIO_YCBCR, _APERIO_RGB = 7, 33003, 33005
_PLAIN_COMPRESSIONS = {1: "none", 5: "LZW", 8: "Deflate", 32946: "Deflate"}
_RGB, _YCBCR = 2, 6
_SMALLEST_SIDE_PX, _LARGEST_SIDE_PX = 16, 4096
# No encoder makes a tile much larger than its raw pixels; what claims more is damaged.
_MAX_BYTES_PER_PX, _SPARE_BYTES = 6, 1 << 16


class NotDirectError(Exception):
    """The level can't be read by offsets; the text is the reason as half a sentence."""


@dataclass(frozen=True)
class StoredTiles(AbstractContextManager["StoredTiles"]):
    """Tiles of a level in row-major order. Use it as a context manager; reading from several threads is safe.

    Attributes:
        width_px: Width of the level.
        height_px: Height of the level.
        tile_width_px: Width of every stored tile, those on the right edge included.
        tile_height_px: Height of every stored tile.
        n_columns: Stored tiles in a row.
        n_rows: Rows of stored tiles.
        offsets: Byte offset of each tile, int64 (n_rows · n_columns,).
        byte_counts: Its stored size; 0 where the tile is absent.
        decoder: Decodes one stored tile.
        file_of: Which of the files holds each tile; None: all lie in one.
        encapsulated: Tiles lie in the items of DICOM frames, and may be cut at the level's edges.
    """

    width_px: int
    height_px: int
    tile_width_px: int
    tile_height_px: int
    n_columns: int
    n_rows: int
    offsets: NDArray[np.int64]
    byte_counts: NDArray[np.int64]
    decoder: Decoder
    _descriptors: tuple[int, ...]
    file_of: NDArray[np.int64] | None = None
    encapsulated: bool = False

    def is_absent(self, index: int) -> bool:
        """True if the file stores no such tile (background)."""
        # OpenSlide takes the size alone for it; an offset of 0 would be the header.
        return int(self.byte_counts[index]) == 0

    def decode(self, index: int, out: NDArray[np.uint8]) -> None:
        """Reads and decodes a stored tile.

        Args:
            index: Row-major position; the tile must not be absent.
            out: C-contiguous uint8 (tile_height_px, tile_width_px, 3) that receives its pixels.

        Raises:
            Exception: The tile can't be read or decoded, for whatever reason the decoder gives.
        """
        length = int(self.byte_counts[index])
        if length > _MAX_BYTES_PER_PX * self.tile_width_px * self.tile_height_px + _SPARE_BYTES:
            raise ValueError(f"the tile claims {length} bytes")
        descriptor = self._descriptors[0 if self.file_of is None else self.file_of[index]]
        data = os.pread(descriptor, length, int(self.offsets[index]))
        if len(data) != length:
            raise ValueError("the file ends inside the tile")
        if not self.encapsulated:
            self.decoder(data, out)
            return
        row, column = divmod(index, self.n_columns)
        left, top = column * self.tile_width_px, row * self.tile_height_px
        decode_cut(self.decoder, frame_of(data), out, (self.height_px - top, self.width_px - left))

    def reducible(self, factor: int) -> bool:
        """True if the decoder itself can reduce the tiles by 2, 4 or 8."""
        return (
            isinstance(self.decoder, JpegDecoder)
            and self.tile_width_px % factor == 0
            and self.tile_height_px % factor == 0
        )

    def reduced(self, factor: int) -> StoredTiles:
        """The same tiles, decoded at ``1 / factor`` of their sides; it shares the open file.

        Raises:
            ValueError: They can't be.
        """
        if not (isinstance(self.decoder, JpegDecoder) and self.reducible(factor)):
            raise ValueError(f"tiles of {self.tile_width_px} px can't be decoded at 1/{factor}")
        return replace(
            self,
            width_px=-(-self.width_px // factor),
            height_px=-(-self.height_px // factor),
            tile_width_px=self.tile_width_px // factor,
            tile_height_px=self.tile_height_px // factor,
            decoder=replace(self.decoder, factor=factor),
        )

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the files."""
        for descriptor in self._descriptors:
            os.close(descriptor)


def open_stored_tiles(slide: Slide, level: int) -> StoredTiles:
    """Finds the tiles of a level in the slide's file.

    Args:
        slide: An open slide.
        level: Index of the level.

    Returns:
        The level's tiles; close them.

    Raises:
        NotDirectError: The file is no TIFF of a known plain layout, or uses what is not supported here.
    """
    if slide.vendor == "dicom":
        return _open_frames(slide, level)
    if slide.vendor not in _VENDORS:
        raise NotDirectError(f"{slide.vendor or 'this format'} is not one of {', '.join(_VENDORS)}, dicom")
    try:
        pages = slide.pages = slide.pages or _find_pages(slide)
        page = _checked(pages[slide.numbers[level]], slide, level)
        decoder = _decoder(page, slide.vendor)
        if slide.vendor == "aperio" and level > 0 and _has_holes(pages, slide.numbers[level]):
            # A hole at level 0 is background. In coarser levels OpenSlide renders its place, and all of the
            # tiles above it, from the finer level.
            raise NotDirectError("it has absent tiles, which OpenSlide renders from a finer level")
        offsets, counts = np.asarray(page.dataoffsets, np.int64), np.asarray(page.databytecounts, np.int64)
        across, down = -(-page.imagewidth // page.tilewidth), -(-page.imagelength // page.tilelength)
    except NotDirectError:
        raise
    except Exception as error:  # a damaged directory makes the parser raise whatever it likes
        raise NotDirectError(f"its TIFF directory can't be parsed ({error})") from error
    if len(offsets) != across * down or len(counts) != len(offsets):
        raise NotDirectError(f"it lists {len(offsets)} tiles where {across} × {down} are needed")
    view = slide.levels[level]
    return StoredTiles(
        width_px=view.width_px,
        height_px=view.height_px,
        tile_width_px=page.tilewidth,
        tile_height_px=page.tilelength,
        n_columns=across,
        n_rows=down,
        offsets=offsets,
        byte_counts=counts,
        decoder=decoder,
        _descriptors=_opened((slide.path,)),
    )


def _opened(paths: Sequence[Path]) -> tuple[int, ...]:
    with contextlib.ExitStack() as on_failure:
        descriptors = []
        for path in paths:
            try:
                descriptors.append(os.open(path, os.O_RDONLY))
            except OSError as error:
                raise NotDirectError(f"it can't be opened again ({error.strerror})") from error
            on_failure.callback(os.close, descriptors[-1])
        on_failure.pop_all()
    return tuple(descriptors)


def _open_frames(slide: Slide, level: int) -> StoredTiles:
    """The frames of a level of a DICOM series."""
    stored = slide.dicom_levels[slide.numbers[level]]
    try:
        decoder = level_decoder(stored)
    except (SlideOpenError, OSError) as error:
        raise NotDirectError(plain_reason(error, slide.path)) from error
    return StoredTiles(
        width_px=stored.width_px,
        height_px=stored.height_px,
        tile_width_px=stored.tile_width_px,
        tile_height_px=stored.tile_height_px,
        n_columns=stored.n_columns,
        n_rows=stored.n_rows,
        offsets=stored.offsets,
        byte_counts=stored.byte_counts,
        decoder=decoder,
        _descriptors=_opened(stored.files),
        file_of=stored.file_of,
        encapsulated=stored.encapsulated,
    )


def _find_pages(slide: Slide) -> Sequence[Any]:
    import tifffile

    # What is wrong with a directory becomes the reason for the other way; the parser's own log would alarm.
    with silent("tifffile"), tifffile.TiffFile(slide.path) as file:
        pages: list[Any] = [page for page in list[Any](file.pages) if page.is_tiled]
    if len(pages) != len(slide.reader_levels):
        raise NotDirectError(f"it has {len(pages)} tiled images for {len(slide.reader_levels)} levels")
    # Finest first, as the levels are; a stable sort, so that equal sizes keep their order in the file.
    return sorted(pages, key=lambda page: -page.imagewidth * page.imagelength)


def _checked(page: Any, slide: Slide, level: int) -> Any:
    view = slide.levels[level]
    wide, high = page.tilewidth, page.tilelength
    # Philips pads its levels to whole tiles; elsewhere the sizes agree.
    spare_x, spare_y = (wide, high) if slide.vendor == "philips" else (1, 1)
    if not (
        0 <= page.imagewidth - view.width_px < spare_x and 0 <= page.imagelength - view.height_px < spare_y
    ):
        raise NotDirectError(f"no tiled image has the {view.width_px} × {view.height_px} px of level {level}")
    if not _SMALLEST_SIDE_PX <= min(wide, high) <= max(wide, high) <= _LARGEST_SIDE_PX:
        raise NotDirectError(f"its tiles have {wide} × {high} px")
    return page


def _has_holes(pages: Sequence[Any], level: int) -> bool:
    return any(0 in page.databytecounts for page in pages[: level + 1])


def _decoder(page: Any, vendor: str) -> Decoder:
    photometric, compression = int(page.photometric), int(page.compression)
    if (page.samplesperpixel, page.bitspersample, int(page.planarconfig)) != (3, 8, 1):
        raise NotDirectError("its tiles are not 8-bit RGB with interleaved samples")
    if compression == _JPEG and photometric in (_RGB, _YCBCR):
        return jpeg_decoder(page.jpegtables, ycbcr=photometric == _YCBCR)
    if compression in TIFF_JPEG2000 and vendor != "aperio":
        return tiff_jpeg2000_decoder(compression, photometric)
    if compression in (_APERIO_YCBCR, _APERIO_RGB):
        return jpeg2000_decoder(ycbcr=compression == _APERIO_YCBCR)
    if compression in _PLAIN_COMPRESSIONS and photometric == _RGB:
        return _PlainDecoder(page)
    raise NotDirectError(f"compression {compression} with photometric {photometric} is not read directly")


class _PlainDecoder:
    """LZW, Deflate and uncompressed tiles, by tifffile's own decoder (predictors included)."""

    def __init__(self, page: Any) -> None:
        self._decode = page.decode

    def __call__(self, data: bytes, out: NDArray[np.uint8]) -> None:
        pixels = self._decode(data, 0)[0]
        if pixels is None or pixels.shape[-3:] != out.shape:
            raise ValueError("the tile has another size than the directory says")
        out[...] = pixels.reshape(out.shape)


PROBE_TOLERANCE = 2
"""Largest difference in grey levels that passes: rounding of two decoders."""

_PROBES = 5
# OpenSlide interpolates between pixels at level coordinates that are no whole numbers; Cairo counts in 1/256.
_WHOLE_PX = 1 / 512


def probe_stored_tiles(
    slide: Slide, level: int, stored: StoredTiles, used: NDArray[np.int64], most: int = _PROBES
) -> int:
    """Compares some stored tiles with what the slide's reader gives for their places.

    Args:
        slide: The slide, open with its own reader.
        level: Index of the level.
        stored: The level's tiles.
        used: Tiles that will be needed, ascending, none absent; the first, the last and some between are
            taken.
        most: How many.

    Returns:
        The largest difference in grey levels, or -1 when no tile could be compared. A tile that either side
        can't read is passed over: it is damaged, and says nothing about the way of reading.
    """
    view = slide.levels[level]
    down = (view.downsample_x + view.downsample_y) / 2
    row, column = np.divmod(used, stored.n_columns)
    corners = np.stack((column * stored.tile_width_px, row * stored.tile_height_px), axis=1)
    whole = (np.abs(np.rint(corners * down) / down - corners) < _WHOLE_PX).all(axis=1)
    chosen = np.flatnonzero(whole)
    if not len(chosen):
        return -1
    order = chosen[np.unique(np.linspace(0, len(chosen) - 1, most).round().astype(np.int64))]
    worst = -1
    for place in order:
        x, y = (int(value) for value in corners[place])
        width, height = (
            min(stored.tile_width_px, view.width_px - x),
            min(stored.tile_height_px, view.height_px - y),
        )
        if width <= 0 or height <= 0:
            continue
        ours = np.empty((stored.tile_height_px, stored.tile_width_px, 3), np.uint8)
        try:
            stored.decode(int(used[place]), ours)
            theirs = slide.read_region(round(x * down), round(y * down), level, width, height)
        except SlideReadError:
            continue
        except Exception:  # noqa: S112 - decoders raise what they like; the tile's own read will report it
            continue
        difference = np.abs(ours[:height, :width].astype(np.int16) - theirs).max()
        worst = max(worst, int(difference))
    return worst
