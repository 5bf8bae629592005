"""Tiny real slides, written with tifffile so that no other room is needed."""

from __future__ import annotations

import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile

WIDTH, HEIGHT, TILE = 700, 600, 128


def texture(width: int = WIDTH, height: int = HEIGHT, seed: int = 0) -> np.ndarray:
    """Smooth colours with some noise: compresses like an image and no two tiles are alike."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    base = np.stack([x * 0.25 + 40, y * 0.3 + 30, 200 - (x + y) * 0.1], axis=2)
    return (base + rng.integers(0, 24, size=base.shape)).clip(0, 230).astype(np.uint8)


def write_svs(
    path: Path, pixels: np.ndarray | None = None, *, mpp: str | None = "0.4990", power: str | None = "20"
) -> Path:
    """A tiled, JPEG-compressed, two-level Aperio slide with label and macro images (strips, as scanners write)."""
    pixels = texture() if pixels is None else pixels
    height, width = pixels.shape[:2]
    text = f"Aperio Image Library v11.2.1 \r\n{width}x{height} [0,0 {width}x{height}] ({TILE}x{TILE}) JPEG/RGB Q=90"
    text += f"|AppMag = {power}" if power is not None else ""
    text += f"|MPP = {mpp}" if mpp is not None else ""
    common = {"tile": (TILE, TILE), "compression": "jpeg", "photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(path) as writer:
        writer.write(pixels, description=text, **common)
        writer.write(
            pixels[::8, ::8].copy(), compression="jpeg", photometric="rgb", metadata=None, rowsperstrip=16
        )
        writer.write(pixels[::4, ::4].copy(), description=text, **common)
        for name, kind in (("label", 1), ("macro", 9)):
            writer.write(
                np.full((40, 60, 3), 77, np.uint8), compression="jpeg", photometric="rgb", metadata=None,
                description=f"Aperio Image Library v11.2.1 \r\n{name} 60x40", subfiletype=kind, rowsperstrip=16,
            )  # fmt: skip
    return path


def write_tiff(path: Path, pixels: np.ndarray | None = None, *, resolution=None, unit=None, **more) -> Path:
    """A generic tiled two-level BigTIFF, as CAMELYON's are: resolution in the tags only, if anywhere."""
    pixels = texture() if pixels is None else pixels
    options = {"tile": (TILE, TILE), "compression": "deflate", "photometric": "rgb", "metadata": None} | more
    if resolution is not None:
        options |= {"resolution": resolution, "resolutionunit": unit}
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        writer.write(pixels, **options)
        writer.write(pixels[::2, ::2].copy(), subfiletype=1, **options)
    return path


def write_sparse_tiff(path: Path, pixels: np.ndarray, absent: set[int]) -> Path:
    """A one-level tiled TIFF whose tiles ``absent`` (raster index) are not stored."""
    height, width = pixels.shape[:2]

    def tiles():
        number = 0
        for y in range(0, height, TILE):
            for x in range(0, width, TILE):
                tile = np.zeros((TILE, TILE, 3), np.uint8)
                part = pixels[y : y + TILE, x : x + TILE]
                tile[: part.shape[0], : part.shape[1]] = part
                yield b"" if number in absent else zlib.compress(tile.tobytes())
                number += 1

    tifffile.imwrite(
        path, tiles(), shape=pixels.shape, dtype=np.uint8, tile=(TILE, TILE), photometric="rgb",
        compression="deflate", metadata=None,
    )  # fmt: skip
    return path


def level0_table(path: Path) -> tuple[list[int], list[int]]:
    """Byte offsets and sizes of the stored tiles of level 0, as tifffile (an independent parser) sees them."""
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        return list(page.dataoffsets), list(page.databytecounts)


def spoil_tile(path: Path, number: int) -> None:
    """Overwrites one stored tile of level 0 with bytes that do not decode."""
    offsets, sizes = level0_table(path)
    with path.open("r+b") as handle:
        handle.seek(offsets[number])
        handle.write(b"\x5a" * sizes[number])


@pytest.fixture(scope="session")
def slide_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("slides")


@pytest.fixture(scope="session")
def svs(slide_folder: Path) -> Path:
    return write_svs(slide_folder / "aperio.svs")


@pytest.fixture(scope="session")
def generic(slide_folder: Path) -> Path:
    return write_tiff(slide_folder / "generic.tif", resolution=(40000, 20000), unit="CENTIMETER")


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """The helpers of this file, for tests (pytest's importlib mode does not let them import it)."""
    return SimpleNamespace(
        texture=texture, write_svs=write_svs, write_tiff=write_tiff, write_sparse_tiff=write_sparse_tiff,
        level0_table=level0_table, spoil_tile=spoil_tile, tile=TILE,
    )  # fmt: skip
