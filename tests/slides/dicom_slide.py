"""Writes a minimal DICOM whole-slide instance (one level) by hand, after PS3.3 A.32.8 and PS3.5 annex A.4."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
from PIL import Image

_WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
_JPEG, _JPEG_2000 = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.91"


def _element(group: int, number: int, kind: str, value: bytes | str) -> bytes:
    if isinstance(value, str):
        value = value.encode() + (b"\0" if kind == "UI" else b" ") * (len(value) % 2)
    if kind in ("OB", "SQ"):
        return struct.pack("<HH2sHI", group, number, kind.encode(), 0, len(value)) + value
    return struct.pack("<HH2sH", group, number, kind.encode(), len(value)) + value


def _short(group: int, number: int, value: int) -> bytes:
    return _element(group, number, "US", struct.pack("<H", value))


def _long(group: int, number: int, value: int) -> bytes:
    return _element(group, number, "UL", struct.pack("<I", value))


def _item(content: bytes) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content


def _frames(pixels: np.ndarray, edge: int, jpeg2000: bool) -> list[bytes]:
    height, width = pixels.shape[:2]
    padded = np.pad(pixels, ((0, -height % edge), (0, -width % edge), (0, 0)), mode="edge")
    frames = []
    for y in range(0, height, edge):
        for x in range(0, width, edge):
            stream = io.BytesIO()
            tile = Image.fromarray(padded[y : y + edge, x : x + edge])
            if jpeg2000:
                tile.save(stream, "JPEG2000", no_jp2=True, irreversible=True, mct=1)
            else:
                tile.save(stream, "JPEG", quality=90, subsampling=0)
            frames.append(stream.getvalue() + b"\0" * (len(stream.getvalue()) % 2))
    return frames


def write_instance(
    path: Path,
    pixels: np.ndarray,
    *,
    series: str,
    uid: str,
    mpp: float,
    edge: int = 128,
    jpeg2000: bool = False,
) -> None:
    """Writes a level as a DICOM file; levels of one series are one slide."""
    height, width = pixels.shape[:2]
    frames = _frames(pixels, edge, jpeg2000)
    finest = uid.endswith(".1")
    meta = (
        _element(2, 1, "OB", b"\0\1") + _element(2, 2, "UI", _WHOLE_SLIDE) + _element(2, 3, "UI", uid)
        + _element(2, 0x10, "UI", _JPEG_2000 if jpeg2000 else _JPEG) + _element(2, 0x12, "UI", "1.2.3")
    )  # fmt: skip
    spacing = _element(0x28, 0x30, "DS", f"{mpp / 1000}\\{mpp / 1000}")
    measures = _element(0x28, 0x9110, "SQ", _item(_element(0x18, 0x50, "DS", "0.001") + spacing))
    body = (
        _element(8, 8, "CS", "ORIGINAL\\PRIMARY\\VOLUME\\NONE" if finest else "DERIVED\\PRIMARY\\VOLUME\\RESAMPLED")
        + _element(8, 0x16, "UI", _WHOLE_SLIDE) + _element(8, 0x18, "UI", uid) + _element(8, 0x60, "CS", "SM")
        + _element(0x20, 0xD, "UI", "1.2.9") + _element(0x20, 0xE, "UI", series)
        + _element(0x20, 0x13, "IS", "1") + _element(0x20, 0x9311, "CS", "TILED_FULL")
        + _short(0x28, 2, 3) + _element(0x28, 4, "CS", "YBR_ICT" if jpeg2000 else "YBR_FULL_422") + _short(0x28, 6, 0)
        + _element(0x28, 8, "IS", str(len(frames))) + _short(0x28, 0x10, edge) + _short(0x28, 0x11, edge)
        + _short(0x28, 0x100, 8) + _short(0x28, 0x101, 8) + _short(0x28, 0x102, 7) + _short(0x28, 0x103, 0)
        + _long(0x48, 6, width) + _long(0x48, 7, height)
        + _element(0x48, 0x105, "SQ", _item(_long(0x28, 0x9001, 1)))
        + _element(0x5200, 0x9229, "SQ", _item(measures))
    )  # fmt: skip
    starts = np.cumsum([0, *(8 + len(frame) for frame in frames[:-1])]).astype("<u4").tobytes()
    path.write_bytes(
        bytes(128) + b"DICM" + _long(2, 0, len(meta)) + meta + body
        + struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, 0xFFFFFFFF)
        + _item(starts) + b"".join(map(_item, frames)) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    )  # fmt: skip
