"""Writes small CZI files with a pyramid, after ZEISS's description of the format (ZISRAW, version 1.2.2)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Block(NamedTuple):
    """Pixels (h, w, 3) RGB, or (h, w) for one colour; where they stand on the canvas; downsample and dimensions."""

    pixels: np.ndarray
    x: int
    y: int
    down: int = 1
    dimensions: tuple[tuple[str, int], ...] = (("C", 0),)


def metadata_of(mpp: float | None = 0.25, size: tuple[int, int] = (0, 0), scenes: int = 1) -> str:
    scaling = "".join(
        f'<Distance Id="{axis}"><Value>{mpp * 1e-6!r}</Value></Distance>' for axis in ("XY" if mpp else "")
    )
    return (
        "<ImageDocument><Metadata><Information><Document><UserName>Jane Doe</UserName></Document>"
        f"<Image><PixelType>Bgr24</PixelType><SizeX>{size[0]}</SizeX><SizeY>{size[1]}</SizeY>"
        f"<SizeS>{scenes}</SizeS></Image></Information>"
        f"<Scaling><Items>{scaling}</Items></Scaling></Metadata></ImageDocument>"
    )


def write_czi(path: Path, blocks: Sequence[Block], metadata: str | None = None) -> Path:
    xml = (metadata_of() if metadata is None else metadata).encode()
    body = bytearray()
    start = 32 + 512
    entries = []
    for block in blocks:
        at = start + len(body)
        entry = _entry(block, at)
        data = block.pixels[:, :, ::-1].tobytes() if block.pixels.ndim == 3 else block.pixels.tobytes()
        head = struct.pack("<iiq", 0, 0, len(data)) + entry
        body += _segment(b"ZISRAWSUBBLOCK", head.ljust(256, b"\0") + data)
        entries.append(entry)
    directory = start + len(body)
    body += _segment(b"ZISRAWDIRECTORY", struct.pack("<i124x", len(entries)) + b"".join(entries))
    document = start + len(body)
    body += _segment(b"ZISRAWMETADATA", struct.pack("<ii248x", len(xml), 0) + xml)
    attachments = start + len(body)
    body += _segment(b"ZISRAWATTDIR", struct.pack("<i252x", 0))
    guids = b"a" * 16, b"a" * 16
    header = struct.pack("<iiii16s16siqqiq", 1, 0, 0, 0, *guids, 0, directory, document, 0, attachments)
    path.write_bytes(_segment(b"ZISRAWFILE", header.ljust(512, b"\0")) + bytes(body))
    return path


def _entry(block: Block, at: int) -> bytes:
    high, wide = block.pixels.shape[:2]
    kind = 3 if block.pixels.ndim == 3 else {"uint8": 0, "uint16": 1}[str(block.pixels.dtype)]
    places = [
        ("X", block.x, wide * block.down, wide),
        ("Y", block.y, high * block.down, high),
        *((name, value, 1, 1) for name, value in block.dimensions),
    ]
    text = struct.pack("<2siqiiBx4xi", b"DV", kind, at, 0, 0, 2 * (block.down > 1), len(places))
    for name, first, size, stored in places:
        text += struct.pack("<4siifi", name.encode(), first, size, float(first), stored)
    return text


def _segment(name: bytes, content: bytes) -> bytes:
    size = -(-len(content) // 32) * 32
    return struct.pack("<16sqq", name, size, len(content)) + content.ljust(size, b"\0")
