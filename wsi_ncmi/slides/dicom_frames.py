"""Levels of a DICOM whole-slide series, and where their frames lie in its files.

Source: DICOM PS3.3, A.32.8 (whole-slide images), C.7.6.16.1 (concatenations) and C.7.6.17.3 (order and places
of tiles); PS3.5, annex A.4 (encapsulated frames and the tables of their offsets).
"""

from __future__ import annotations

import os
import struct
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import SlideOpenError
from wsi_ncmi.slides.dicom_header import WHOLE_SLIDE_IMAGE, read_dicom

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_ELEMENTS = (
    "SOPClassUID", "ImageType", "SOPInstanceUID", "SOPInstanceUIDOfConcatenationSource",
    "ConcatenationFrameOffsetNumber", "InConcatenationTotalNumber", "DimensionOrganizationType",
    "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows",
    "Columns", "BitsAllocated", "PixelRepresentation", "TotalPixelMatrixColumns", "TotalPixelMatrixRows",
    "TotalPixelMatrixFocalPlanes", "NumberOfOpticalPaths", "SharedFunctionalGroupsSequence",
    "ExtendedOffsetTable", "PixelData",
)  # fmt: skip
_PLACES = "PerFrameFunctionalGroupsSequence"
# Tables of places of 10^6 frames; a level of 10^6 px a side has 4,000² frames of 256 px.
_MOST_BYTES = 1 << 30
JPEG = "1.2.840.10008.1.2.4.50"
"""Transfer syntax of baseline JPEG."""

JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
"""Transfer syntaxes of JPEG 2000: lossless only, and either."""

NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")
"""Transfer syntaxes of pixels that are not compressed, implicit and explicit."""
_ITEM, _UNDEFINED = b"\xfe\xff\x00\xe0", 0xFFFFFFFF
_LONG_KINDS = (b"OB", b"OW", b"UN")


@dataclass(frozen=True, eq=False)
class DicomLevel:
    """A level, and its frames as stored tiles in raster order.

    Attributes:
        files: The files that hold it: one, or those of its concatenation.
        width_px: Width of the level.
        height_px: Its height.
        tile_width_px: Width of a tile.
        tile_height_px: Its height.
        syntax: UID of the transfer syntax: how frames are encoded.
        photometric: What the file says of its colours, such as ``YBR_FULL_422``.
        planar: True where a frame that isn't compressed holds one colour after the other.
        mpp: Microns a pixel along x and y, or None.
        file_of: int64 (N,) index into ``files`` of each tile.
        offsets: int64 (N,) byte offset of each tile, with the item tags of encapsulation.
        byte_counts: int64 (N,) its stored size; 0 means that it is absent.
    """

    files: tuple[Path, ...]
    width_px: int
    height_px: int
    tile_width_px: int
    tile_height_px: int
    syntax: str
    photometric: str
    planar: bool
    mpp: tuple[float, float] | None
    file_of: NDArray[np.int64]
    offsets: NDArray[np.int64]
    byte_counts: NDArray[np.int64]

    @property
    def n_columns(self) -> int:
        """Tiles in a row."""
        return -(-self.width_px // self.tile_width_px)

    @property
    def n_rows(self) -> int:
        """Rows of tiles."""
        return -(-self.height_px // self.tile_height_px)

    @property
    def encapsulated(self) -> bool:
        """True if frames are compressed, with item tags around each."""
        return self.syntax not in NATIVE

    def size_of(self, index: int) -> tuple[int, int]:
        """Height and width of the part of a tile that lies on the level."""
        row, column = divmod(index, self.n_columns)
        return (
            min(self.tile_height_px, self.height_px - row * self.tile_height_px),
            min(self.tile_width_px, self.width_px - column * self.tile_width_px),
        )

    def read(self, index: int) -> bytes:
        """The encoded frame of a tile.

        Raises:
            OSError: The file can't be read.
            ValueError: No frame lies where the table says.
        """
        with self.files[self.file_of[index]].open("rb") as file:
            data = os.pread(file.fileno(), int(self.byte_counts[index]), int(self.offsets[index]))
        if len(data) != self.byte_counts[index]:
            raise ValueError("the file ends inside the frame")
        return frame_of(data) if self.encapsulated else data


def frame_of(items: bytes) -> bytes:
    """The frame that lies in one item or several.

    Raises:
        ValueError: The bytes are no items.
    """
    parts, position = [], 0
    while position < len(items):
        length = int.from_bytes(items[position + 4 : position + 8], "little")
        start, position = position + 8, position + 8 + length
        if items[start - 8 : start - 4] != _ITEM or position > len(items):
            raise ValueError("no frame lies where the table of offsets says")
        parts.append(items[start:position])
    return parts[0] if len(parts) == 1 else b"".join(parts)


def dicom_levels(files: Sequence[Path]) -> tuple[DicomLevel, ...]:
    """The levels of a DICOM slide, finest first.

    Args:
        files: Its files.

    Raises:
        OSError: A file can't be read.
        SlideOpenError: It is no whole-slide image, or of a kind that isn't read; half a sentence.
    """
    of_level: dict[tuple[int, int], list[_Instance]] = defaultdict(list)
    for path in files:
        instance = _read_instance(path)
        if instance.is_volume:
            of_level[instance.size].append(instance)
    if not of_level:
        raise SlideOpenError("none of its objects is said to show the slide (image type VOLUME)")
    return tuple(_level(of_level[size]) for size in sorted(of_level, key=lambda size: -size[0] * size[1]))


@dataclass(frozen=True, eq=False)
class _Instance:
    """An object of a series: its header, and where the element of its pixels begins."""

    path: Path
    header: Dataset
    start: int

    @property
    def is_volume(self) -> bool:
        kinds = self.header.get("ImageType") or ()
        return "VOLUME" in (str(kind).upper() for kind in ([kinds] if isinstance(kinds, str) else kinds))

    @property
    def size(self) -> tuple[int, int]:
        return self.number("TotalPixelMatrixColumns"), self.number("TotalPixelMatrixRows")

    @property
    def level_uid(self) -> str:
        return str(
            self.header.get("SOPInstanceUIDOfConcatenationSource") or self.header.get("SOPInstanceUID", "")
        )

    def number(self, keyword: str, default: int | None = None) -> int:
        value = self.header.get(keyword)
        if value is None and default is not None:
            return default
        try:
            return int(value)
        except (TypeError, ValueError):
            raise SlideOpenError(f"{self.path.name} does not say its {keyword}") from None


def _read_instance(path: Path) -> _Instance:
    read = read_dicom(path, _ELEMENTS, _MOST_BYTES)
    if read is None:
        raise SlideOpenError("it is no DICOM file")
    if read[0].get("SOPClassUID", WHOLE_SLIDE_IMAGE) != WHOLE_SLIDE_IMAGE:
        raise SlideOpenError("it is a DICOM object of another kind than a whole-slide image")
    return _Instance(path, *read)


_EXPECTED = {
    "SamplesPerPixel": (3, "samples a pixel"), "BitsAllocated": (8, "bits a sample"),
    "PixelRepresentation": (0, "as sign of its samples"), "TotalPixelMatrixFocalPlanes": (1, "focal planes"),
    "NumberOfOpticalPaths": (1, "optical paths"),
}  # fmt: skip


def _level(parts: list[_Instance]) -> DicomLevel:
    """A level from its file, or from the files of its concatenation."""
    first = parts[0]
    width, height = first.size
    rows, columns = first.number("Rows"), first.number("Columns")
    if min(width, height, rows, columns) < 1:
        raise SlideOpenError(f"{first.path.name} has sides of 0 px")
    for keyword, (expected, what) in _EXPECTED.items():
        if (found := first.number(keyword, expected)) != expected:
            raise SlideOpenError(f"its level of {width} × {height} px has {found} {what}, not {expected}")
    kinds = {(part.level_uid, part.number("Rows"), part.number("Columns"), part.header.TransferSyntaxUID,
              part.header.get("PhotometricInterpretation")) for part in parts}  # fmt: skip
    # Of two copies of a file the first counts: the one that was asked for.
    firsts = {part.number("ConcatenationFrameOffsetNumber", 0): part for part in reversed(parts)}
    if len(kinds) > 1:
        raise SlideOpenError(f"it has several levels of {width} × {height} px (focal planes, or two copies)")
    if len(firsts) < first.number("InConcatenationTotalNumber", 1):
        raise SlideOpenError(
            f"its level of {width} × {height} px has {first.number('InConcatenationTotalNumber')} parts, "
            f"of which {len(firsts)} are here"
        )
    n_tiles = -(-width // columns) * -(-height // rows)
    level = DicomLevel(
        files=tuple(part.path for part in firsts.values()), width_px=width, height_px=height,
        tile_width_px=columns, tile_height_px=rows, syntax=str(first.header.TransferSyntaxUID),
        photometric=str(first.header.get("PhotometricInterpretation", "")),
        planar=first.number("PlanarConfiguration", 0) == 1, mpp=_mpp(first.header),
        file_of=np.zeros(n_tiles, np.int64), offsets=np.zeros(n_tiles, np.int64),
        byte_counts=np.zeros(n_tiles, np.int64),
    )  # fmt: skip
    for number, (before, part) in enumerate(firsts.items()):
        _place_frames(level, number, part, before)
    return level


def _mpp(header: Dataset) -> tuple[float, float] | None:
    try:
        # In millimetres between rows, then between columns.
        down, across = header.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
        return float(across) * 1000, float(down) * 1000
    except (AttributeError, LookupError, TypeError, ValueError):
        return None


def _place_frames(level: DicomLevel, number: int, part: _Instance, before: int) -> None:
    """Writes the places of a part's frames into the level's tables."""
    count = part.number("NumberOfFrames")
    sparse = str(part.header.get("DimensionOrganizationType", "")).upper() != "TILED_FULL"
    tiles = _sparse_tiles(level, part) if sparse else np.arange(before, before + count)
    n_tiles = len(level.offsets)
    if len(tiles) != count or count < 1 or not 0 <= tiles.min() <= tiles.max() < n_tiles:
        raise SlideOpenError(f"{part.path.name} has {count} frames that don't fit its {n_tiles} tiles")
    offsets, counts = _frames(level, part, count)
    if level.byte_counts[tiles].any() or len(np.unique(tiles)) != count:
        raise SlideOpenError(f"{part.path.name} has several frames in one place (focal planes or channels)")
    level.file_of[tiles], level.offsets[tiles], level.byte_counts[tiles] = number, offsets, counts
    # Only what is said to be sparse may leave tiles out.
    if not sparse and number == len(level.files) - 1 and not level.byte_counts.all():
        raise SlideOpenError(f"its level of {level.width_px} × {level.height_px} px lacks frames")


def _sparse_tiles(level: DicomLevel, part: _Instance) -> NDArray[np.int64]:
    """The tile of each frame, by the place that each one says (1 is the first pixel)."""
    read = read_dicom(part.path, (_PLACES,), _MOST_BYTES)
    try:
        groups = read[0][_PLACES].value if read else ()
        places = [group.PlanePositionSlideSequence[0] for group in groups]
        x, y = (
            np.array([int(place[keyword].value) for place in places], np.int64) - 1
            for keyword in ("ColumnPositionInTotalImagePixelMatrix", "RowPositionInTotalImagePixelMatrix")
        )
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise SlideOpenError(f"{part.path.name} does not say where its frames lie") from error
    if (x % level.tile_width_px).any() or (y % level.tile_height_px).any() or (x >= level.width_px).any():
        raise SlideOpenError(f"{part.path.name} has frames that lie on no grid")
    tiles: NDArray[np.int64] = y // level.tile_height_px * level.n_columns + x // level.tile_width_px
    return tiles


def _frames(level: DicomLevel, part: _Instance, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Byte offset and stored size of each frame of a part, in its order."""
    from pydicom.encaps import parse_basic_offsets, parse_fragments

    with part.path.open("rb") as file:
        end = os.fstat(file.fileno()).st_size
        file.seek(part.start)
        head = file.read(12)
        long = head[4:6] in _LONG_KINDS
        (length,) = struct.unpack_from("<I", head, 8 if long else 4) if len(head) == 12 else (0,)
        start = part.start + (12 if long else 8)
        if not level.encapsulated:
            size = level.tile_width_px * level.tile_height_px * 3
            if start + size * count > min(end, start + length):
                raise SlideOpenError(f"{part.path.name} ends before its pixels")
            return start + size * np.arange(count), np.full(count, size)
        if length != _UNDEFINED:
            raise SlideOpenError(f"{part.path.name} has no pixels where its header says")
        file.seek(start)
        try:
            starts = np.array(parse_basic_offsets(file), np.int64)
            base = file.tell()
            if extended := part.header.get("ExtendedOffsetTable"):
                starts = np.frombuffer(extended, "<u8").astype(np.int64)
            if len(starts) != count or (np.diff(starts) <= 0).any():  # none; numbers above 4 GiB overflow
                starts = np.array(parse_fragments(file)[1], np.int64) - base
            file.seek(base + int(starts[-1]))
            last = parse_fragments(file)[1][-1]
            file.seek(last + 4)
            stop = last + 8 + int.from_bytes(file.read(4), "little") - base
        except (ValueError, LookupError, struct.error, AttributeError) as error:
            raise SlideOpenError(f"the frames of {part.path.name} don't follow one another") from error
    if len(starts) != count:
        raise SlideOpenError(
            f"{part.path.name} has {len(starts)} pieces for {count} frames, and no table of their places"
        )
    if starts[0] < 0 or base + stop > end:
        raise SlideOpenError(f"{part.path.name} is cut off: frames lie behind its end")
    return base + starts, np.diff(np.append(starts, stop))
