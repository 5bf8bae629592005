"""Damage of JPEG 2000 codestreams that decoders pass over.

An arithmetic decoder makes pixels of any bytes: OpenJPEG decodes a tile of which half was zeroed, with a
warning at most. What compressed data can't look like tells most damage in less than 1 ms (decoding takes 5 to
20): the chain of tile-parts must lead to the end marker; a byte 0xFF is never followed by more than 0x8F
(ITU-T T.800, B.10.1 and C.2.1; resynchronisation markers excepted); what is compressed can't be compressed
again (unless it is lossless: flat background leaves that repetitive); the headers of the packets must lead
from one to the next. Changed bytes inside one packet's code-blocks can't be seen this way, nor by a decoder:
the format has no checksum. Comparing with the next level would find a tenth to two fifths of those that show,
at the cost of reading it for every tile: an error in a fine sub-band is zero on average.
"""

from __future__ import annotations

import functools
import math
import os
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import imagecodecs

from wsi_ncmi.core.errors import SlideReadError
from wsi_ncmi.slides.dicom_frames import JPEG_2000, DicomLevel
from wsi_ncmi.slides.jpeg2000_packets import check_packets

if TYPE_CHECKING:
    from wsi_ncmi.slides.base import Slide
    from wsi_ncmi.slides.tiff_layout import TiffDirectory

_CODESTREAM = b"\xff\x4f\xff\x51"
_END = b"\xff\xd9"
_START_OF_PART, _START_OF_DATA, _CODING = 0xFF90, 0xFF93, 0xFF52
# SOP and EPH (0xFF91, 0xFF92) may stand between packets.
_IMPOSSIBLE = re.compile(rb"\xff[\x90\x93-\xff]")
# Packets without content are a byte each; of 28 frames of a real slide, with glass, 90 bytes could be saved.
_SAVED_BYTES, _SAVED_A_PACKET, _MORE_ZEROS = 256, 2, 16


def jpeg2000_damage(stream: bytes) -> str:
    """The reason why a codestream can't be whole, as half a sentence; empty where nothing tells.

    Args:
        stream: A codestream without a file format around it, as TIFF tiles hold it.
    """
    try:
        packets, position = _main_header(stream)
        while stream[position : position + 2] != _END:
            position = _check_part(stream, position, packets)
        check_packets(stream)
    except (struct.error, IndexError):
        return "the JPEG 2000 tile ends early"
    except ValueError as error:
        return str(error)
    return ""


# Behind length and capabilities: size, offset, tile size and its offset, number of components.
_SIZ = struct.Struct(">4x4I16xH")


def jpeg2000_frame(stream: bytes) -> tuple[tuple[int, int], list[tuple[int, int]]]:
    """Height, width and each component's steps, from a codestream's SIZ marker (ITU-T T.800, A.5.1).

    Raises:
        ValueError: It is no codestream.
    """
    start = len(_CODESTREAM) + _SIZ.size
    if not stream.startswith(_CODESTREAM) or len(stream) < start:
        raise ValueError("the tile is no JPEG 2000 codestream")
    right, bottom, left, top, components = _SIZ.unpack_from(stream, len(_CODESTREAM))
    stop = min(start + 3 * components, len(stream) - 2)
    return (bottom - top, right - left), [(stream[i + 1], stream[i + 2]) for i in range(start, stop, 3)]


TIFF_JPEG2000 = (33003, 33004, 33005, 34712)
"""Numbers of the compression in TIFF files: Aperio's and Bio-Formats', and the one of libtiff's list."""

HEAD_BYTES = 1000
"""Of a tile, which hold the main header of its codestream."""

_APERIO_YCBCR, _PHOTOMETRIC_YCBCR = 33003, 6


def holds_ycbcr(stream: bytes, compression: int, photometric: int) -> bool:
    """True if a decoder of a TIFF tile that undoes the codestream's own transform gets YCbCr.

    Bio-Formats writes RGB under the number by which Aperio means YCbCr, so the codestream decides.

    Args:
        stream: A tile, or its first ``HEAD_BYTES``.
        compression: Number of the compression.
        photometric: Number of the photometric interpretation.

    Raises:
        ValueError: It may be either.
    """
    steps = jpeg2000_frame(stream)[1]
    if len(steps) < 3:
        return False
    if any(step != (1, 1) for step in steps):
        return True
    coding = stream.find(_CODING.to_bytes(2, "big"))
    if 0 <= coding < len(stream) - 8 and stream[coding + 8]:
        return False
    if compression == _APERIO_YCBCR and photometric != _PHOTOMETRIC_YCBCR:
        raise ValueError("its JPEG 2000 tiles may be RGB or YCbCr; convert it with another compression")
    return photometric == _PHOTOMETRIC_YCBCR


def _main_header(stream: bytes) -> tuple[int, int]:
    """Packets of a tile, about, and the place of the first tile-part."""
    if not stream.startswith(_CODESTREAM):
        raise ValueError("the tile is no JPEG 2000 codestream")
    components = struct.unpack_from(">H", stream, 40)[0]
    position, packets = 2, 0
    while True:
        marker, length = struct.unpack_from(">HH", stream, position)
        if marker == _START_OF_PART:
            return packets, position
        if marker == _CODING:
            packets = components * _packets_of_a_component(stream, position + 4)
        if not 0xFF50 <= marker <= 0xFF6F or length < 2:
            raise ValueError("the header of the JPEG 2000 tile is damaged")
        position += 2 + length


def _packets_of_a_component(stream: bytes, coding: int) -> int:
    """Layers times precincts of all resolutions, from the coding style (ITU-T T.800, A.6.1)."""
    own_precincts, layers, decompositions = struct.unpack_from(">BxHxB", stream, coding)
    width, height = struct.unpack_from(">II", stream, 8)
    precincts = 0
    for resolution in range(decompositions + 1):
        sides = stream[coding + 10 + resolution] if own_precincts & 1 else 0xFF
        step = 1 << (decompositions - resolution)
        across, down = step << (sides & 15), step << (sides >> 4)
        precincts += -(-width // across) * -(-height // down)
    return int(layers * precincts)


def _check_part(stream: bytes, start: int, packets: int) -> int:
    """Checks a tile-part and gives the place of what follows it."""
    marker, _, _, length = struct.unpack_from(">HHHI", stream, start)
    if marker != _START_OF_PART:
        raise ValueError("the JPEG 2000 tile has no end marker where its length says")
    stop = start + length if length else stream.rfind(_END)
    position = start + 12
    while (found := struct.unpack_from(">HH", stream, position))[0] != _START_OF_DATA:
        if not 0xFF50 <= found[0] <= 0xFF6F or found[1] < 2:
            raise ValueError("the header of the JPEG 2000 tile is damaged")
        position += 2 + found[1]
    data = stream[position + 2 : stop]
    if stop > len(stream) - len(_END) or stop < position + 2:
        raise ValueError("the JPEG 2000 tile ends early")
    if _IMPOSSIBLE.search(data):
        raise ValueError("the JPEG 2000 tile holds bytes that no encoder writes")
    if bytes(packets + _MORE_ZEROS) in data:
        raise ValueError("parts of the JPEG 2000 tile are zeros")
    if _is_reversible(stream):
        return stop
    saved = len(data) - len(imagecodecs.lz4_encode(data, header=False)) if data else 0
    if saved > _SAVED_BYTES + _SAVED_A_PACKET * packets:
        raise ValueError("parts of the JPEG 2000 tile were overwritten by something that repeats itself")
    return stop


def _is_reversible(stream: bytes) -> bool:
    """True if nothing was quantised (5-3 transform): of flat background such data do repeat themselves."""
    coding = stream.find(_CODING.to_bytes(2, "big"))
    return 0 <= coding < len(stream) - 13 and stream[coding + 13] == 1


# Aperio's compressions of its own: YCbCr and RGB.
_COMPRESSIONS = (33003, 33005)


class Jpeg2000Guard:
    """Examines stored tiles for a reader whose decoder passes damage over.

    Args:
        slide: An open slide; of other formats than Aperio's and DICOM's JPEG 2000 nothing is examined.
    """

    def __init__(self, slide: Slide) -> None:
        self._slide = slide
        self._levels = _stored_levels(slide)
        self._known: dict[tuple[int, int], str] = {}

    def check(self, x_level0: int, y_level0: int, number: int, width_px: int, height_px: int) -> None:
        """Examines a region.

        Args:
            x_level0: Left edge in level-0 pixels.
            y_level0: Upper edge.
            number: Index into ``slide.reader_levels``.
            width_px: Width in pixels of that level.
            height_px: Height.

        Raises:
            SlideReadError: A tile under it is damaged.
        """
        if number not in self._levels:
            return
        stored, level = self._levels[number], self._slide.reader_levels[number]
        down = (level.downsample_x + level.downsample_y) / 2
        left, top = max(x_level0 / down, 0.0), max(y_level0 / down, 0.0)
        right = min(x_level0 / down + width_px, stored.width_px)
        bottom = min(y_level0 / down + height_px, stored.height_px)
        across = -(-stored.width_px // stored.tile_width_px)
        for row in range(int(top // stored.tile_height_px), math.ceil(bottom / stored.tile_height_px)):
            for column in range(int(left // stored.tile_width_px), math.ceil(right / stored.tile_width_px)):
                index = row * across + column
                if reason := self._damage(number, index):
                    raise SlideReadError(f"stored tile {index}: {reason}")

    def _damage(self, number: int, index: int) -> str:
        key = number, index
        if key not in self._known:
            stream = self._levels[number].read(index)
            # A tile of no bytes is absent, not damaged.
            self._known[key] = "" if stream is None else jpeg2000_damage(stream)
        return self._known[key]


@dataclass(frozen=True)
class _Tiles:
    """Stored tiles of a level; ``read`` gives one of them, None where it is absent."""

    width_px: int
    height_px: int
    tile_width_px: int
    tile_height_px: int
    read: Callable[[int], bytes | None]


def _stored_levels(slide: Slide) -> dict[int, _Tiles]:
    """Index into ``slide.reader_levels`` → its tiles, of the levels that are JPEG 2000."""
    if slide.vendor == "dicom":
        return {
            number: _Tiles(
                each.width_px, each.height_px, each.tile_width_px, each.tile_height_px,
                functools.partial(_read_frame, each),
            )
            for number, each in enumerate(slide.dicom_levels) if each.syntax in JPEG_2000
        }  # fmt: skip
    from wsi_ncmi.slides.absent_tiles import level_directories

    return {
        number: _Tiles(
            each.width_px, each.height_px, each.tile_width_px, each.tile_height_px,
            functools.partial(_read_tile, slide.path, each),
        )
        for number, each in enumerate(level_directories(slide) if slide.vendor == "aperio" else ())
        if each.compression in _COMPRESSIONS
    }  # fmt: skip


def _read_frame(level: DicomLevel, index: int) -> bytes | None:
    return level.read(index) if level.byte_counts[index] else None


def _read_tile(path: Path, directory: TiffDirectory, index: int) -> bytes | None:
    length = int(directory.byte_counts[index])
    with path.open("rb") as file:
        return os.pread(file.fileno(), length, int(directory.offsets[index])) if length else None
