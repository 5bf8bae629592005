"""Places of the JPEG 2000 frames of a DICOM whole-slide level in its file.

Source: DICOM PS3.5, annex A.4 (encapsulated pixel data); PS3.3, C.7.6.17 (TILED_FULL: raster order).
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import SlideOpenError
from wsi_ncmi.slides.dicom_header import read_dicom

_ELEMENTS = (
    "DimensionOrganizationType", "NumberOfFrames", "Rows", "Columns",
    "TotalPixelMatrixColumns", "TotalPixelMatrixRows", "PixelData",
)  # fmt: skip
_JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
_UNREADABLE = (
    OSError,
    ValueError,
    LookupError,
    ArithmeticError,
    AttributeError,
    struct.error,
    SlideOpenError,
)
_ELEMENT_BYTES = 12  # tag, kind and length of pixel data


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


def jpeg2000_levels(files: Sequence[Path]) -> list[StoredLevel]:
    """The levels of a DICOM slide that are JPEG 2000, each frame one stored tile in raster order.

    Args:
        files: Those of the slide.
    """
    return [level for level in map(_read, files) if level is not None]


def _read(path: Path) -> StoredLevel | None:
    """The level of a file; None where it is no JPEG 2000 or no plain grid."""
    try:
        return _parse(path)
    except _UNREADABLE:
        return None


def _parse(path: Path) -> StoredLevel | None:
    from pydicom.encaps import parse_basic_offsets, parse_fragments

    read = read_dicom(path, _ELEMENTS)
    if read is None or read[0].TransferSyntaxUID not in _JPEG_2000:
        return None
    values, start = read
    width, height = values.TotalPixelMatrixColumns, values.TotalPixelMatrixRows
    needed = -(-width // values.Columns) * -(-height // values.Rows)
    with path.open("rb") as file:
        file.seek(start + _ELEMENT_BYTES)
        parse_basic_offsets(file)
        count, items = parse_fragments(file)
        starts = np.array(items, np.uint64) + 8
        file.seek(items[-1] + 4)
        last = int.from_bytes(file.read(4), "little")
    whole = values.get("DimensionOrganizationType") == "TILED_FULL" and count == needed
    if not whole or values.NumberOfFrames != needed:
        return None
    lengths = np.append(np.diff(starts) - 8, np.uint64(last)).astype(np.uint64)
    return StoredLevel(path, width, height, values.Columns, values.Rows, starts, lengths)
