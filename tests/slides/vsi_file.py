"""Writes small Olympus VSI slides: the pixels as ETS files, as Bio-Formats' reader (CellSens) describes them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tifffile

TILE = 256
RAW, JPEG = 0, 2


def write_vsi(
    path: Path,
    levels: Sequence[np.ndarray],
    compression: int = RAW,
    encode: Callable[[np.ndarray], bytes] = np.ndarray.tobytes,
) -> Path:
    """A file of one image; ``path`` itself holds a label picture alone."""
    ets = path.with_name(f"_{path.stem}_") / "stack1" / "frame_t.ets"
    ets.parent.mkdir(parents=True)
    ets.write_bytes(_ets(levels, compression, encode))
    tifffile.imwrite(path, np.full((64, 64, 3), 77, np.uint8), tile=(32, 32), photometric="rgb")
    return path


def _ets(levels: Sequence[np.ndarray], compression: int, encode: Callable[[np.ndarray], bytes]) -> bytes:
    header, volume = 64, 228
    pixels, records = bytearray(), bytearray()
    count = 0
    for number, level in enumerate(levels):
        for row in range(-(-level.shape[0] // TILE)):
            for column in range(-(-level.shape[1] // TILE)):
                part = level[row * TILE :, column * TILE :][:TILE, :TILE]
                tile = np.full((TILE, TILE, 3), 255, np.uint8)
                tile[: part.shape[0], : part.shape[1]] = part
                stored = encode(tile)
                place = header + volume + len(pixels)
                records += struct.pack("<I4iQII", 4, column, row, 0, number, place, len(stored), 0)
                pixels += stored
                count += 1
    end = header + volume + len(pixels)
    sis = struct.pack("<4sIIIQIIQII", b"SIS\0", header, 2, 4, header, volume, 0, end, count, 0)
    ets = struct.pack("<4s9I", b"ETS\0", 0x30001, 2, 3, 4, compression, 90, TILE, TILE, 1)
    ets += bytes(68) + b"\xff" * 3 + bytes(37) + struct.pack("<II", 1, len(levels) > 1)
    return sis.ljust(header, b"\0") + ets.ljust(volume, b"\0") + bytes(pixels) + bytes(records)
