"""A reader of DICOM whole-slide series, for what OpenSlide refuses or would show wrong."""

import functools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import SlideOpenError
from wsi_ncmi.slides.base import Level, Slide
from wsi_ncmi.slides.dicom_colours import level_decoder, openslide_colours, true_colours
from wsi_ncmi.slides.dicom_frames import DicomLevel, dicom_levels
from wsi_ncmi.slides.tile_decoders import OtherSizeError, decode_cut

_KEPT_BYTES = 16 << 20


class DicomSlide(Slide):
    """A series read frame by frame; embedded colour profiles are left alone, as by OpenSlide.

    Args:
        path: One of its files.
        files: All of them, if there are several.
    """

    def __init__(self, path: Path, files: Sequence[Path] = ()) -> None:
        files = files or (path,)
        self.dicom_levels = dicom_levels(files)
        self._decoders = [level_decoder(level) for level in self.dicom_levels]
        first = self.dicom_levels[0]
        mpp = dict(zip(("openslide.mpp-x", "openslide.mpp-y"), map(repr, first.mpp or ()), strict=False))
        super().__init__(
            path,
            reader="dicom",
            vendor="dicom",
            levels=[
                Level(w, h, first.width_px / w, first.height_px / h)
                for w, h in ((each.width_px, each.height_px) for each in self.dicom_levels)
            ],
            properties={"openslide.vendor": "dicom", **mpp},
        )
        self.files = tuple(files)
        # Neighbouring regions share tiles.
        self._tile = functools.lru_cache(1 + _KEPT_BYTES // (first.tile_width_px * first.tile_height_px * 3))(
            self._decode
        )

    def _decode(self, level: int, index: int) -> NDArray[np.uint8]:
        stored = self.dicom_levels[level]
        tile = np.empty((stored.tile_height_px, stored.tile_width_px, 3), np.uint8)
        decode_cut(self._decoders[level], stored.read(index), tile, stored.size_of(index))
        return tile

    def _read(
        self, x_level0: int, y_level0: int, level: int, width_px: int, height_px: int
    ) -> NDArray[np.uint8]:
        stored, view = self.dicom_levels[level], self.reader_levels[level]
        # Placed by the mean of both downsamples, as readers do.
        down = (view.downsample_x + view.downsample_y) / 2
        left, top = math.floor(x_level0 / down), math.floor(y_level0 / down)
        result = np.zeros((height_px, width_px, 4), np.uint8)
        wide, high = stored.tile_width_px, stored.tile_height_px
        x0, y0 = max(left, 0), max(top, 0)
        x1, y1 = min(left + width_px, stored.width_px), min(top + height_px, stored.height_px)
        for row in range(y0 // high, -(-y1 // high)):
            for column in range(x0 // wide, -(-x1 // wide)):
                index = row * stored.n_columns + column
                if not stored.byte_counts[index]:
                    continue
                tile = self._tile(level, index)
                x, y = column * wide, row * high
                a, b, c, d = max(x0, x), min(x1, x + wide), max(y0, y), min(y1, y + high)
                part = result[c - top : d - top, a - left : b - left]
                part[:, :, :3] = tile[c - y : d - y, a - x : b - x]
                part[:, :, 3] = 255
        return result


def check_openslide_dicom(files: Sequence[Path], levels: list[tuple[int, int]]) -> tuple[DicomLevel, ...]:
    """Makes sure that OpenSlide shows a DICOM series as it is.

    Args:
        files: Its files.
        levels: Width and height of the levels that OpenSlide finds.

    Returns:
        Its levels as they lie in the files.

    Raises:
        SlideOpenError: It does not; half a sentence with the reason.
        OSError: A file can't be read.
    """
    stored = dicom_levels(files)
    if [(each.width_px, each.height_px) for each in stored] != levels:
        raise SlideOpenError("it does not find the series' levels, or finds others besides")
    for each in stored:
        what = f"level of {each.width_px} × {each.height_px} px"
        if (true := true_colours(each)) != openslide_colours(each):
            raise SlideOpenError(
                f"it would show wrong colours: the {what} says {each.photometric}, but its frames give {true}"
            )
        if _has_cut_frames(each):
            raise SlideOpenError(f"it does not read frames of the {what}, which are smaller than the others")
    return stored


def _has_cut_frames(level: DicomLevel) -> bool:
    """True if a frame in a corner of the level is smaller than a tile."""
    decoder, out = level_decoder(level), np.empty((level.tile_height_px, level.tile_width_px, 3), np.uint8)
    last = len(level.offsets) - 1
    for index in {level.n_columns - 1, last + 1 - level.n_columns, last}:
        if level.byte_counts[index]:
            try:
                decoder(level.read(index), out)
            except OtherSizeError:
                return True
            except Exception:  # noqa: S112 - decoders raise what they like; the frame's own read will report it
                continue
    return False
