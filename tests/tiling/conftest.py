"""Small pyramidal slides of every kind that the direct path reads, written here, opened by OpenSlide."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from wsi_ncmi.tiling import TileGrid, TileReader, TileSelection

Image8 = NDArray[np.uint8]

_PHILIPS = """<?xml version="1.0" encoding="UTF-8" ?>
<DataObject ObjectType="DPUfsImport"><Attribute Name="PIM_DP_SCANNED_IMAGES" PMSVR="IDataObjectArray"><Array>
<DataObject ObjectType="DPScannedImage"><Attribute Name="PIM_DP_IMAGE_TYPE" PMSVR="IString">WSI</Attribute>
<Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE" PMSVR="IDataObjectArray"><Array>{levels}</Array></Attribute>
</DataObject></Array></Attribute></DataObject>"""
_PHILIPS_LEVEL = """<DataObject ObjectType="PixelDataRepresentation">
<Attribute Name="DICOM_PIXEL_SPACING" PMSVR="IDoubleArray">"{spacing}" "{spacing}"</Attribute>
<Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_NUMBER" PMSVR="IUInt16">{number}</Attribute></DataObject>"""


@dataclass(frozen=True)
class Kind:
    """How a test slide is stored."""

    compression: str = "jpeg"  # jpeg, j2k-ycbcr, j2k-rgb, none, lzw, deflate
    vendor: str = "generic"  # generic, aperio, philips
    tile: tuple[int, int] = (256, 256)
    subsampling: str = "420"
    rgb: bool = False  # JPEG without colour transform
    shared_tables: bool = False
    quality: int = 80
    absent: frozenset[int] = field(default_factory=frozenset)
    factors: Sequence[int] = (1, 4)
    bigtiff: bool = False


def texture(width: int, height: int, seed: int = 0) -> Image8:
    """Pink tissue with dark blobs and single-pixel noise: every error of place, colour or chroma shows."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (height // 16 + 2, width // 16 + 2, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)
    mix = smooth * np.array([0.35, 0.5, 0.3]) + np.array([130.0, 70.0, 120.0])
    return np.clip(mix + rng.normal(0, 9, (height, width, 1)), 0, 255).astype(np.uint8)


def _encode(tile: Image8, kind: Kind) -> bytes:
    if kind.compression == "jpeg":
        return imagecodecs.jpeg8_encode(
            tile,
            level=kind.quality,
            colorspace="rgb",
            outcolorspace="rgb" if kind.rgb else "ycbcr",
            subsampling="444" if kind.rgb else kind.subsampling,
            optimize=False,
        )
    if kind.compression == "j2k-ycbcr":
        tile = np.asarray(Image.fromarray(tile).convert("YCbCr"))
    return imagecodecs.jpeg2k_encode(tile, codecformat="j2k", level=40, reversible=False, mct=False)


def split_tables(stream: bytes) -> tuple[bytes, bytes]:
    """A JPEG into an abbreviated table stream and an abbreviated image without JFIF marker."""
    tables, image, position = b"", b"", 2
    while stream[position + 1] != 0xDA:
        length = 2 + int.from_bytes(stream[position + 2 : position + 4], "big")
        segment = stream[position : position + length]
        if stream[position + 1] in (0xDB, 0xC4):
            tables += segment
        elif not 0xE0 <= stream[position + 1] <= 0xEF:
            image += segment
        position += length
    return b"\xff\xd8" + tables + b"\xff\xd9", b"\xff\xd8" + image + stream[position:]


def _tiles(image: Image8, tile: tuple[int, int]) -> Iterator[Image8]:
    height, width = image.shape[:2]
    across, down = -(-width // tile[0]), -(-height // tile[1])
    padded = np.pad(image, ((0, down * tile[1] - height), (0, across * tile[0] - width), (0, 0)), mode="edge")
    for y in range(down):
        for x in range(across):
            yield np.ascontiguousarray(padded[y * tile[1] :, x * tile[0] :][: tile[1], : tile[0]])


def write_slide(path: Path, image: Image8, kind: Kind) -> Path:
    """Writes a pyramid whose levels are plain decimations of the image."""
    codes = {"jpeg": 7, "j2k-ycbcr": 33003, "j2k-rgb": 33005}
    with tifffile.TiffWriter(path, bigtiff=kind.bigtiff) as file:
        for number, factor in enumerate(kind.factors):
            level = np.ascontiguousarray(image[::factor, ::factor])
            if kind.vendor != "philips":
                level = level[: image.shape[0] // factor, : image.shape[1] // factor]
            options: dict[str, object] = {
                "tile": kind.tile[::-1], "photometric": "rgb", "metadata": None, "software": False,
                "subfiletype": 1 if number else 0,
            }  # fmt: skip
            if kind.vendor == "aperio":
                h, w = level.shape[:2]
                options["description"] = f"Aperio Image Library v1.0\n{w}x{h} |AppMag = 20|MPP = 0.5"
            if kind.vendor == "philips":
                options["software"] = "Philips DP v1.0"
                if number == 0:
                    options["description"] = _PHILIPS.format(
                        levels="".join(
                            _PHILIPS_LEVEL.format(spacing=0.00025 * f, number=i)
                            for i, f in enumerate(kind.factors)
                        )
                    )
                pad = [(0, -side % step) for side, step in zip(level.shape, kind.tile[::-1], strict=False)]
                level = np.pad(level, (*pad, (0, 0)))
            if kind.compression not in codes:
                plain = None if kind.compression == "none" else kind.compression
                predictor = None if plain is None else 2
                file.write(level, compression=plain, predictor=predictor, **options)
                continue
            streams = [_encode(tile, kind) for tile in _tiles(level, kind.tile)]
            if kind.shared_tables:
                parts = [split_tables(stream) for stream in streams]
                assert len({tables for tables, _ in parts}) == 1
                options["extratags"] = [(347, 7, len(parts[0][0]), parts[0][0], True)]
                streams = [stream for _, stream in parts]
            if number == 0:
                streams = [b"" if i in kind.absent else stream for i, stream in enumerate(streams)]
            if kind.compression == "jpeg" and not kind.rgb:
                options |= {
                    "photometric": "ycbcr",
                    "subsampling": {"420": (2, 2), "422": (2, 1), "444": (1, 1)}[kind.subsampling],
                }
            file.write(
                iter(streams),
                shape=level.shape,
                dtype=np.uint8,
                compression=codes[kind.compression],
                **options,
            )
    return path


@pytest.fixture
def make_slide(tmp_path: Path) -> Callable[..., Path]:
    """Writes a slide: ``make_slide(width, height, Kind(...))``."""

    def make(width: int, height: int, kind: Kind, seed: int = 0) -> Path:
        suffix = ".svs" if kind.vendor == "aperio" else ".tif"
        return write_slide(tmp_path / f"slide{seed}{suffix}", texture(width, height, seed), kind)

    return make


def everything(grid: TileGrid) -> TileSelection:
    """All tiles of a grid as a selection."""
    chosen = np.arange(len(grid), dtype=np.int64)
    return TileSelection(chosen, grid.coords(chosen), np.ones(len(chosen), np.float16))


def read_all(reader: TileReader, batch_size: int = 7) -> tuple[Image8, NDArray[np.bool_]]:
    """All tiles of a reader and which of them failed."""
    with reader:
        batches = list(reader.batches(batch_size))
    assert np.array_equal(
        np.concatenate([b.rows for b in batches]), np.arange(sum(len(b.rows) for b in batches))
    )
    return np.concatenate([b.pixels for b in batches]), np.concatenate([b.failed for b in batches])
