"""One image of a TIFF file with its levels in sub-directories (OME-TIFF, vips, QuPath), tile by tile."""

import contextlib
import logging
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_ncmi.core.errors import SlideOpenError
from wsi_ncmi.slides.base import Level, Slide
from wsi_ncmi.slides.jpeg2000 import HEAD_BYTES, TIFF_JPEG2000, holds_ycbcr, jpeg2000_damage, jpeg2000_frame
from wsi_ncmi.slides.ome import OmeError, find_slide_image
from wsi_ncmi.slides.tiff_layout import read_tiff_layout
from wsi_ncmi.slides.tiffslide_reader import check_samples
from wsi_ncmi.slides.tile_decoders import jpeg_decoder

_SEPARATE_PLANES = 2
_JPEG, _YCBCR = 7, 6
# Decoded tiles that are kept, as much as OpenSlide does: converters write tiles of 1,024 px.
_KEPT_BYTES = 32 << 20


class TiffPagesSlide(Slide):
    """A slide read tile by tile through tifffile's decoders, and libjpeg-turbo's for JPEG.

    It is the image that the OME-XML names as the slide, else the first tiled one. OpenSlide sees no
    sub-directories, and would show an OME-TIFF's first image, which may be the label. The XML is not given to
    tifffile, which opens the files that it names.
    """

    def __init__(self, path: Path) -> None:
        import tifffile

        layout = read_tiff_layout(path)
        if layout is None or not layout.tiled_images:
            raise SlideOpenError("it is no tiled TIFF file")
        try:
            chosen = find_slide_image(layout.description, layout.main_directories)
        except OmeError as error:
            raise SlideOpenError(str(error)) from error
        first = layout.main_directories.index(layout.tiled_images[0][0])
        with silent("tifffile"), tifffile.TiffFile(path) as file:
            planes = [file.pages[number] for number in (chosen.directories if chosen else (first,))]
            self._levels = [[_checked(page, planes[0]) for page in planes], *_nested(planes)]
        sizes = [(int(pages[0].imagewidth), int(pages[0].imagelength)) for pages in self._levels]
        width, height = sizes[0]
        super().__init__(
            path,
            reader="tifffile",
            vendor="generic-tiff",
            levels=[Level(w, h, width / max(w, 1), height / max(h, 1)) for w, h in sizes],
            properties={"openslide.vendor": "generic-tiff"}
            | _resolution(planes[0])
            | {"tiff.ImageDescription": layout.description},
        )
        self.pages = [pages[0] for pages in self._levels] if len(planes) == 1 else ()
        self._kept: OrderedDict[tuple[int, int], NDArray[np.uint8]] = OrderedDict()
        self._lock = threading.Lock()
        self._descriptor = os.open(path, os.O_RDONLY)
        try:
            self._check_colours(planes[0])
        except BaseException:
            os.close(self._descriptor)
            raise

    def _check_colours(self, page: Any) -> None:
        stored = next((i for i, length in enumerate(page.databytecounts) if length), None)
        if page.compression in TIFF_JPEG2000 and stored is not None:
            head = os.pread(self._descriptor, HEAD_BYTES, page.dataoffsets[stored])
            holds_ycbcr(head, page.compression, page.photometric)

    def _read(
        self, x_level0: int, y_level0: int, level: int, width_px: int, height_px: int
    ) -> NDArray[np.uint8]:
        view = self.reader_levels[level]
        # Placed by the mean of both downsamples, as OpenSlide does.
        scale = (view.downsample_x + view.downsample_y) / 2
        left, top = math.floor(x_level0 / scale), math.floor(y_level0 / scale)
        x0, x1 = max(left, 0), min(left + width_px, view.width_px)
        y0, y1 = max(top, 0), min(top + height_px, view.height_px)
        result = np.zeros((height_px, width_px, 4), dtype=np.uint8)
        if x0 >= x1 or y0 >= y1:
            return result
        for channel, page in enumerate(self._levels[level]):
            wide, high = page.tilewidth, page.tilelength
            across, down = -(-page.imagewidth // wide), -(-page.imagelength // high)
            separate = len(self._levels[level]) > 1 or page.planarconfig == _SEPARATE_PLANES
            for plane in range(page.samplesperpixel if page.planarconfig == _SEPARATE_PLANES else 1):
                for row in range(y0 // high, (y1 - 1) // high + 1):
                    for column in range(x0 // wide, (x1 - 1) // wide + 1):
                        tile = self._tile(page, (plane * down + row) * across + column)
                        if tile is None:  # absent: it stays transparent
                            continue
                        x, y = column * wide, row * high
                        right, bottom = min(x1, x + tile.shape[1]), min(y1, y + tile.shape[0])
                        place = result[max(y0, y) - top : bottom - top, max(x0, x) - left : right - left]
                        part = tile[max(y0 - y, 0) : bottom - y, max(x0 - x, 0) : right - x]
                        place[:, :, 3] = 255
                        if separate:
                            place[:, :, channel + plane] = part[:, :, 0]
                        else:  # grey goes into all three
                            place[:, :, : max(part.shape[2], 3)] = part
        return result

    def _tile(self, page: Any, index: int) -> NDArray[np.uint8] | None:
        key = int(page.offset), index
        with self._lock:
            if (known := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
                return known
        tile = self._decoded(page, index)
        if tile is not None:
            with self._lock:
                self._kept[key] = tile
                while sum(each.nbytes for each in self._kept.values()) > _KEPT_BYTES:
                    self._kept.popitem(last=False)
        return tile

    def _decoded(self, page: Any, index: int) -> NDArray[np.uint8] | None:
        length = page.databytecounts[index]
        if length == 0:
            return None
        data = os.pread(self._descriptor, length, page.dataoffsets[index])
        if len(data) != length:
            raise ValueError("the file ends inside the tile")
        ycbcr = False
        if page.compression == _JPEG and page.planarconfig != _SEPARATE_PLANES and page.samplesperpixel == 3:
            # tifffile's own decoder fills up a stream that ends early, and says nothing.
            tile = np.empty((page.tilelength, page.tilewidth, 3), np.uint8)
            jpeg_decoder(page.jpegtables, ycbcr=page.photometric == _YCBCR)(data, tile)
            return tile
        if page.compression in TIFF_JPEG2000:
            # The decoder takes memory for whatever the stream claims, and makes pixels of any bytes.
            size, steps = jpeg2000_frame(data)
            if size != (page.tilelength, page.tilewidth):
                raise ValueError(f"the tile claims {size[1]} × {size[0]} px")
            if reason := jpeg2000_damage(data):
                raise ValueError(reason)
            ycbcr = set(steps) == {(1, 1)} and holds_ycbcr(data, page.compression, page.photometric)
        tile = page.decode(data, index, jpegtables=page.jpegtables, jpegheader=page.jpegheader)[0][0]
        # Of subsampled chroma the decoder gives RGB itself.
        if ycbcr:
            tile = np.asarray(Image.fromarray(tile, "YCbCr").convert("RGB"))
        return tile

    def _close(self) -> None:
        self._kept.clear()
        os.close(self._descriptor)


def _checked(page: Any, first: Any) -> Any:
    """A page of the first level; raises SlideOpenError where it can't be read, or not with the first one."""
    check_samples(page)
    if not page.is_tiled or (page.imagewidth, page.imagelength) != (first.imagewidth, first.imagelength):
        raise SlideOpenError("its planes are not tiled, or not of one size")
    return page


def _nested(planes: list[Any]) -> list[list[Any]]:
    """The pages of the coarser levels, finest first: tiled sub-directories with the same kind of pixels."""
    kind = _kind(planes[0])
    levels = [
        list(pages)
        for pages in zip(*(page.pages or () for page in planes), strict=False)
        if all(_kind(page) == kind for page in pages) and pages[0].imagewidth < planes[0].imagewidth
    ]
    return sorted(levels, key=lambda pages: -pages[0].imagewidth * pages[0].imagelength)


def _kind(page: Any) -> tuple[object, ...]:
    return page.is_tiled, page.samplesperpixel, page.dtype, page.photometric, page.planarconfig


def _resolution(page: Any) -> dict[str, str]:
    """The resolution tags under OpenSlide's names."""
    names = "XResolution", "YResolution"
    texts = {f"tiff.{name}": page.tags.valueof(name) for name in names}
    if any(text is None or not text[1] for text in texts.values()):
        return {}
    unit = page.tags.valueof("ResolutionUnit", default=2)
    return {name: repr(over / under) for name, (over, under) in texts.items()} | {
        "tiff.ResolutionUnit": {2: "inch", 3: "centimeter", 4: "millimeter", 5: "micrometer"}.get(
            int(unit), "none"
        )
    }


@contextlib.contextmanager
def silent(logger: str) -> Iterator[None]:
    """Holds back what a parser logs: what is wrong with a directory becomes the reason for another way."""
    log = logging.getLogger(logger)
    before = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(before)
