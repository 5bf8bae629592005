"""Places of the JPEG 2000 frames of a DICOM whole-slide level in its file.

Source: DICOM PS3.5, annex A.4 (encapsulated pixel data); PS3.3, C.7.6.17 (TILED_FULL: raster order).
"""

import contextlib
import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.slides.dicom_header import MalformedError, element, skip_sequence

_SYNTAX, _SERIES, _ORDER = (0x0002, 0x0010), (0x0020, 0x000E), (0x0020, 0x9311)
_FRAMES, _ROWS, _COLUMNS = (0x0028, 0x0008), (0x0028, 0x0010), (0x0028, 0x0011)
_WIDTH, _HEIGHT, _PIXELS = (0x0048, 0x0006), (0x0048, 0x0007), (0x7FE0, 0x0010)
_JPEG_2000 = (b"1.2.840.10008.1.2.4.90", b"1.2.840.10008.1.2.4.91")
_UNREADABLE = (OSError, ValueError, LookupError, ArithmeticError, struct.error, MalformedError)
_ITEM, _UNDEFINED = (0xFFFE, 0xE000), 0xFFFFFFFF


@dataclass(frozen=True, eq=False)
class StoredLevel:
    """Stored tiles of a level in raster order.

    Attributes:
        path: The file that holds them.
        width_px: Width of the level.
        height_px: Its height.
        tile_width_px: Width of a tile.
        tile_height_px: Its height.
        offsets: uint64 (N,) byte offset of each tile.
        byte_counts: uint64 (N,) its stored size; 0 means that it is absent.
    """

    path: Path
    width_px: int
    height_px: int
    tile_width_px: int
    tile_height_px: int
    offsets: NDArray[np.uint64]
    byte_counts: NDArray[np.uint64]


def jpeg2000_levels(slide: Path) -> list[StoredLevel]:
    """The levels of a DICOM slide that are JPEG 2000, each frame one stored tile in raster order.

    Args:
        slide: A file of its series; the others lie beside it.
    """
    own = _read(slide)
    if own is None:
        return []
    found = []
    with os.scandir(slide.parent) as scan:
        files = [Path(entry.path) for entry in scan if entry.is_file()]
    for path in files:
        read = own if path == slide else _read(path)
        if read is not None and read[0] == own[0] and read[1] is not None:
            found.append(read[1])
    return found


def _read(path: Path) -> tuple[bytes, StoredLevel | None] | None:
    """Series and level of a file; None where it is no JPEG 2000, no level where it is no plain grid."""
    with contextlib.suppress(*_UNREADABLE), path.open("rb") as file:
        if file.read(132)[128:] != b"DICM":
            return None
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _parse(path, data)
    return None


def _parse(path: Path, data: mmap.mmap) -> tuple[bytes, StoredLevel | None] | None:
    values: dict[tuple[int, int], bytes] = {}
    position = 132
    while True:
        tag, start, length = element(data, position, implicit=False)
        if tag == _PIXELS:
            break
        if tag > _SYNTAX and values.get(_SYNTAX) not in _JPEG_2000:
            return None
        if length == _UNDEFINED:
            position = skip_sequence(data, start, False, 0)
        else:
            values[tag] = data[start : start + min(length, 256)].rstrip(b"\0 ")
            position = start + length
    series = values[_SERIES]
    frames: list[tuple[int, int]] = []
    position = start
    while (item := element(data, position, implicit=False))[0] == _ITEM:
        frames.append(item[1:])
        position = item[1] + item[2]
    # The first item is the table of offsets.
    places = np.array(frames[1:], np.uint64).reshape(-1, 2)
    width, height = (int.from_bytes(data_of, "little") for data_of in (values[_WIDTH], values[_HEIGHT]))
    rows, columns = (int.from_bytes(data_of, "little") for data_of in (values[_ROWS], values[_COLUMNS]))
    needed = -(-width // columns) * -(-height // rows)
    if values.get(_ORDER) != b"TILED_FULL" or len(places) != needed or int(values[_FRAMES]) != needed:
        return series, None
    return series, StoredLevel(path, width, height, columns, rows, places[:, 0], places[:, 1])
