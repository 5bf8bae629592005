"""Positions of the pixels of a TIFF-based slide in its file, from its directories alone.

Source: TIFF 6.0, the BigTIFF design (libtiff), and Hamamatsu's NDPI variant as OpenSlide's documentation
describes it: little-endian classic TIFF with 64-bit directory offsets. It is read here, not through a TIFF
library, because it feeds the stored identity of a slide (which must not change with a library's version) and
must survive any damaged file. No pixel is touched.
"""

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

_MAX_DIRECTORIES = 5_000
_MAX_ENTRIES = 4_096
# OpenSlide takes memory for a tile of whatever size is claimed, and ends the process without it.
_MAX_TILE_PX = 1 << 26
_WIDTH, _HEIGHT, _BITS_PER_SAMPLE, _COMPRESSION, _TILE_WIDTH, _TILE_HEIGHT = 256, 257, 258, 259, 322, 323
_STRIP_OFFSETS, _STRIP_COUNTS, _TILE_OFFSETS, _TILE_COUNTS = 273, 279, 324, 325
_SUB_DIRECTORIES, _NDPI_FORMAT_FLAG = 330, 65420
_PHOTOMETRIC, _DESCRIPTION, _MOST_DESCRIPTION_BYTES = 262, 270, 1 << 25
_SAMPLES, _RESOLUTION, _RESOLUTION_UNIT = 277, 282, 296
_INCH, _CM_PER_UNIT = 2, {2: 2.54, 3: 1.0}
# Values of all directories: three times those of the largest slide (ten centimetres at 0.1 µm).
_MAX_VALUES = 1 << 25
_RATIONAL = 5
# Of small values that directories may share.
_SPARE_BYTES = 1 << 16
_INTEGER_TYPES = {3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}


@dataclass(frozen=True)
class TiffDirectory:
    """One image of the file.

    Attributes:
        tiled: Stored as tiles (pyramid levels are) rather than strips.
        entries: The directory's raw entries: dimensions, compression, tile size and the like.
        offsets: uint64 (N,) byte offset of each stored tile or strip.
        byte_counts: uint64 (N,) its stored size; 0 means that it is absent (background).
        px_per_cm: Pixels in a centimetre along x; 0 where none is said.
        samples: Channels of a pixel.
        photometric: Number of the photometric interpretation; 0 when the tag is absent.
        nested: It is a sub-directory, of the nearest main one in front of it.
        bits_per_sample: The widest channel's bits; 0 when the tag is absent.
        width_px: Width of the image; 0 when the tag is absent, as the next three.
        height_px: Its height.
        tile_width_px: Width of a tile.
        tile_height_px: Its height.
        compression: Number of the compression; 0 when the tag is absent.
    """

    tiled: bool
    entries: bytes
    offsets: NDArray[np.uint64]
    byte_counts: NDArray[np.uint64]
    px_per_cm: float
    samples: int
    photometric: int
    nested: bool
    bits_per_sample: int
    width_px: int
    height_px: int
    tile_width_px: int
    tile_height_px: int
    compression: int


@dataclass(frozen=True)
class TiffLayout:
    """All images of the file.

    Attributes:
        directories: In file order, sub-directories behind their parent.
        ndpi: The file is Hamamatsu's variant.
        damage: Empty, or why the file can't be whole, as half a sentence.
        description: The text of the first directory.
    """

    directories: tuple[TiffDirectory, ...]
    ndpi: bool
    damage: str
    description: str = ""

    @property
    def main_directories(self) -> tuple[TiffDirectory, ...]:
        """The directories that are linked to each other, without their sub-directories."""
        return tuple(directory for directory in self.directories if not directory.nested)

    @property
    def tiled_images(self) -> list[list[TiffDirectory]]:
        """Each tiled main directory with its tiled sub-directories, which hold the image's coarser levels."""
        images: list[list[TiffDirectory]] = []
        for directory in self.directories:
            if not directory.nested:
                images.append([])
            if directory.tiled and (images[-1] or not directory.nested):
                images[-1].append(directory)
        return [image for image in images if image]

    @property
    def pixel_directories(self) -> tuple[TiffDirectory, ...]:
        """The directories that hold the slide's pixels: the tiled ones, else the one with the most bytes.

        Scanners store pyramid levels as tiles and label and macro images as strips, so those are left out.
        """
        tiled = tuple(directory for directory in self.directories if directory.tiled)
        if tiled or not self.directories:
            return tiled
        return (max(self.directories, key=lambda directory: int(directory.byte_counts.sum())),)


class _DamagedError(Exception):
    """The file ends, or holds something else, where a directory should be; the text is half a sentence."""


def read_tiff_layout(path: Path) -> TiffLayout | None:
    """Reads the directories of a TIFF-based file and checks that all stored tiles lie inside the file.

    Args:
        path: Any file.

    Returns:
        The layout, or None when the file does not begin like a TIFF.

    Raises:
        OSError: The file can't be read.
    """
    with path.open("rb") as handle:
        size = os.fstat(handle.fileno()).st_size
        header = handle.read(16)
        order = {b"II": "<", b"MM": ">"}.get(header[:2])
        if order is None or len(header) < 8:
            return None
        version = struct.unpack(order + "H", header[2:4])[0]
        if version not in (42, 43):
            return None
        parser = _Parser(handle, size, order, big=version == 43)
        damage = ""
        try:
            parser.walk(header)
        except _DamagedError as error:
            damage = str(error)
    directories = tuple(parser.directories)
    damage = damage or _missing_pixels(directories, size, parser.ndpi)
    return TiffLayout(directories, parser.ndpi, damage, parser.description)


def _missing_pixels(directories: tuple[TiffDirectory, ...], size: int, ndpi: bool) -> str:
    if not directories:
        return "it has no image directory"
    # Where there are tiled levels, a cut label or macro image costs no pixel of the slide.
    tiled = [directory for directory in directories if directory.tiled]
    for directory in tiled or directories:
        stored = directory.byte_counts > 0
        # NDPI keeps only the low 32 bits of a size; there the offset alone is checked.
        needed = np.minimum(directory.byte_counts, 1) if ndpi and size >= 1 << 32 else directory.byte_counts
        room = size - np.minimum(directory.offsets, np.uint64(size))  # no sum: it could wrap around
        beyond = int((stored & (needed > room)).sum())
        if beyond:
            kind = "tiles" if directory.tiled else "strips"
            return f"{beyond} of its {int(stored.sum())} stored {kind} lie beyond its end at byte {size}"
        if not directory.tiled and not stored.all():
            # Tiles may be absent, as background; a strip without data would be read as black.
            return f"{int((~stored).sum())} of its {len(stored)} strips hold nothing"
    return next((reason for directory in tiled if (reason := _impossible_size(directory))), "")


def _impossible_size(directory: TiffDirectory) -> str:
    """Sizes that the table of tiles does not bear out: readers give background for what it does not list."""
    wide, high = directory.width_px, directory.height_px
    tile_px = directory.tile_width_px * directory.tile_height_px
    if min(wide, high, tile_px) < 1 or tile_px > _MAX_TILE_PX:
        return (
            f"a level claims {wide} × {high} px in tiles of {directory.tile_width_px} × "
            f"{directory.tile_height_px} px"
        )
    needed = -(-wide // directory.tile_width_px) * -(-high // directory.tile_height_px)
    listed = len(directory.byte_counts)
    if listed < needed:
        return f"a level claims {wide} × {high} px but lists {listed} of the {needed} tiles that this takes"
    return ""


class _Parser:
    def __init__(self, handle: BinaryIO, size: int, order: str, *, big: bool) -> None:
        self._handle, self._size, self._order, self._big = handle, size, order, big
        self.ndpi = False
        self.directories: list[TiffDirectory] = []
        self.description = ""
        self._seen: set[int] = set()
        self._listed = self._read = 0

    def walk(self, header: bytes) -> None:
        if self._big:
            if len(header) < 16:
                raise _DamagedError("it ends inside its header")
            offset = struct.unpack(self._order + "Q", header[8:16])[0]
        else:
            offset = struct.unpack(self._order + "I", header[4:8])[0]
            if self._order == "<" and len(header) >= 12:
                wide = struct.unpack("<Q", header[4:12])[0]
                self.ndpi = wide < self._size and self._has_ndpi_flag(wide)
                offset = wide if self.ndpi else offset
        while offset:
            offset = self._directory(offset, nested=False)

    def _has_ndpi_flag(self, offset: int) -> bool:
        try:
            return any(tag == _NDPI_FORMAT_FLAG for tag, *_ in self._entries(offset)[0])
        except _DamagedError:
            return False

    def _bytes(self, offset: int, length: int, what: str) -> bytes:
        if offset + length > self._size:
            raise _DamagedError(f"its {what} at byte {offset} lies beyond its end at byte {self._size}")
        self._read += length
        if self._read > self._size + _SPARE_BYTES:
            # Directories that share one table cost memory for each of them, whatever the size of the file.
            raise _DamagedError(
                f"its image directories overlap: they take more than the {self._size} bytes it has"
            )
        self._handle.seek(offset)
        data = self._handle.read(length)
        if len(data) != length:
            raise _DamagedError(f"it ends inside its {what} at byte {offset}")
        return data

    def _entries(self, offset: int) -> tuple[list[tuple[int, int, int, bytes]], bytes, int]:
        head, entry = ("Q", 20) if self._big else ("H", 12)
        width = struct.calcsize("<" + head)
        count = struct.unpack(self._order + head, self._bytes(offset, width, "image directory"))[0]
        if not 0 < count <= _MAX_ENTRIES:
            raise _DamagedError(f"its image directory at byte {offset} claims {count} entries")
        raw = self._bytes(offset + width, count * entry, "image directory")
        form = self._order + ("HHQ8s" if self._big else "HHI4s")
        end = offset + width + len(raw)
        return [struct.unpack_from(form, raw, i * entry) for i in range(count)], raw, end

    def _directory(self, offset: int, *, nested: bool) -> int:
        if offset in self._seen or len(self._seen) >= _MAX_DIRECTORIES:
            raise _DamagedError(f"its image directories form a loop at byte {offset}")
        self._seen.add(offset)
        entries, raw, end = self._entries(offset)
        tags = {tag: (kind, count, value) for tag, kind, count, value in entries}
        link, length = ("Q", 8) if self._big or self.ndpi else ("I", 4)
        following: int = struct.unpack(self._order + link, self._bytes(end, length, "directory link"))[0]
        tiled = _TILE_OFFSETS in tags
        offsets = self._values(tags.get(_TILE_OFFSETS if tiled else _STRIP_OFFSETS), offset)
        counts = self._values(tags.get(_TILE_COUNTS if tiled else _STRIP_COUNTS), offset)
        if len(offsets) != len(counts):
            raise _DamagedError(
                f"its image directory at byte {offset} lists {len(offsets)} offsets for {len(counts)} sizes"
            )
        if self.ndpi:
            offsets = np.array([self._wide(int(value), offset) for value in offsets], dtype=np.uint64)
        numbers = (
            int(self._values(tags.get(tag), offset).max(initial=0))
            for tag in (_BITS_PER_SAMPLE, _WIDTH, _HEIGHT, _TILE_WIDTH, _TILE_HEIGHT, _COMPRESSION)
        )
        resolution, samples = self._px_per_cm(tags), self._small(tags, _SAMPLES, 1)
        photometric = self._small(tags, _PHOTOMETRIC, 0)
        if not self.directories:
            self.description = self._text(tags.get(_DESCRIPTION))
        self.directories.append(
            TiffDirectory(tiled, raw, offsets, counts, resolution, samples, photometric, nested, *numbers)
        )
        if not nested:
            for child in self._values(tags.get(_SUB_DIRECTORIES), offset):
                self._directory(int(child), nested=True)
        return 0 if nested else following

    def _values(self, tag: tuple[int, int, bytes] | None, directory: int) -> NDArray[np.uint64]:
        if tag is None:
            return np.zeros(0, dtype=np.uint64)
        kind, count, value = tag
        if kind not in _INTEGER_TYPES:
            raise _DamagedError(f"its image directory at byte {directory} has a tag of the wrong type {kind}")
        dtype = np.dtype(self._order + _INTEGER_TYPES[kind])
        length = count * dtype.itemsize
        self._listed += count
        if self._listed > _MAX_VALUES and length <= self._size:
            raise _DamagedError(f"its image directories list more than {_MAX_VALUES} tiles")
        if length > len(value):
            start = struct.unpack(self._order + ("Q" if self._big else "I"), value)[0]
            value = self._bytes(self._wide(start, directory) if self.ndpi else start, length, "tile table")
        return np.frombuffer(value, dtype=dtype, count=count).astype(np.uint64)

    def _small(self, tags: dict[int, tuple[int, int, bytes]], tag: int, default: int) -> int:
        kind, count, value = tags.get(tag, (0, 0, b""))
        return int(struct.unpack(self._order + "H", value[:2])[0]) if (kind, count) == (3, 1) else default

    def _text(self, tag: tuple[int, int, bytes] | None) -> str:
        """A text outside the directory; what can't be one is none, for nothing of the pixels hangs on it."""
        _, count, value = tag or (0, 0, b"")
        if self.ndpi or not len(value) < count <= _MOST_DESCRIPTION_BYTES:
            return ""
        start = struct.unpack(self._order + ("Q" if self._big else "I"), value)[0]
        if start + count > self._size:
            return ""
        self._handle.seek(start)
        data = self._handle.read(count).rstrip(b"\0")
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            return data.decode("latin-1")

    def _px_per_cm(self, tags: dict[int, tuple[int, int, bytes]]) -> float:
        kind, count, value = tags.get(_RESOLUTION, (0, 0, b""))
        unit = _CM_PER_UNIT.get(self._small(tags, _RESOLUTION_UNIT, _INCH), 0.0)
        if (kind, count) != (_RATIONAL, 1) or not unit:
            return 0.0
        if not self._big:
            start = struct.unpack(self._order + "I", value)[0]
            if self.ndpi or start + 8 > self._size:
                return 0.0
            value = self._bytes(start, 8, "resolution")
        over, under = struct.unpack(self._order + "II", value)
        return float(over / under / unit) if under else 0.0

    def _wide(self, low: int, directory: int) -> int:
        # NDPI stores 32 bits of an offset; the data lie in front of the directory that names them.
        wide = (directory & ~0xFFFFFFFF) | low
        return wide - (1 << 32) if wide >= directory and wide >= 1 << 32 else wide
