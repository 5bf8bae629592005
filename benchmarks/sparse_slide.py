"""Writes huge sparse slides as CAMELYON's converters do: BigTIFF, absent tiles, a little tissue."""

from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

__all__ = ["tissue_places", "write_sparse_slide"]

_TEXTURES = 16
_FACTORS = (1, 2, 4, 8, 16, 32, 64)


def tissue_places(columns: int, rows: int, wanted: int) -> NDArray[np.bool_]:
    """A round section in the middle of the slide: bool (rows, columns), ``wanted`` tiles of it true."""
    y, x = np.mgrid[:rows, :columns]
    distance = np.hypot((y + 0.5) / rows - 0.5, (x + 0.5) / columns - 0.5)
    chosen = np.zeros(rows * columns, np.bool_)
    chosen[np.argsort(distance, axis=None, kind="stable")[:wanted]] = True
    return chosen.reshape(rows, columns)


def write_sparse_slide(
    path: Path,
    side_px: int,
    tissue_tiles: int,
    *,
    tile_px: int = 512,
    mpp: float = 0.25,
    pyramid: bool = True,
    seed: int = 0,
) -> int:
    """Writes a square slide in which only tissue is stored, on every level.

    The tissue is made of sixteen different tiles, so that a slide of any size is written in seconds; smaller
    levels hold their area means.

    Args:
        path: File to write.
        side_px: Side of level 0.
        tissue_tiles: Stored tiles of level 0.
        tile_px: Edge of the stored tiles.
        mpp: µm per pixel, stored as resolution tags.
        pyramid: Levels of factors 2 to 64 as long as they are larger than a tile; else level 0 alone.
        seed: Of the textures.

    Returns:
        The number of level-0 tiles that hold tissue.
    """
    tiles = -(-side_px // tile_px)
    places = tissue_places(tiles, tiles, tissue_tiles)
    rng = np.random.default_rng(seed)
    textures = [_texture(rng, tile_px) for _ in range(_TEXTURES)]
    factors = [f for f in _FACTORS if f == 1 or (pyramid and side_px // f >= tile_px)]
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for factor in factors:
            per_cm = 1e4 / (mpp * factor)
            file.write(
                _level(places, textures, factor, tile_px, side_px // factor),
                shape=(side_px // factor, side_px // factor, 3), dtype=np.uint8, tile=(tile_px, tile_px),
                compression=7, photometric="ycbcr", subsampling=(2, 2), metadata=None, software=False,
                subfiletype=int(factor > 1), resolution=(per_cm, per_cm), resolutionunit="CENTIMETER",
            )  # fmt: skip
    return int(places.sum())


def _level(
    places: NDArray[np.bool_], textures: list[NDArray[np.uint8]], factor: int, tile_px: int, side_px: int
) -> Iterator[bytes]:
    """The tiles of a level; each covers ``factor``² tiles of level 0."""
    count = -(-side_px // tile_px)
    piece = tile_px // factor
    small = [np.asarray(Image.fromarray(tile).reduce(factor)) for tile in textures]
    whole = [_encoded(tile) for tile in textures] if factor == 1 else []
    for row in range(count):
        for column in range(count):
            part = places[row * factor : (row + 1) * factor, column * factor : (column + 1) * factor]
            if not part.any():
                yield b""
            elif factor == 1:
                yield whole[(row * 7 + column * 3) % _TEXTURES]
            else:
                tile = np.full((tile_px, tile_px, 3), 255, np.uint8)
                for y, x in np.argwhere(part).tolist():
                    number = ((row * factor + y) * 7 + (column * factor + x) * 3) % _TEXTURES
                    tile[y * piece : (y + 1) * piece, x * piece : (x + 1) * piece] = small[number]
                yield _encoded(tile)


def _texture(rng: np.random.Generator, side: int) -> NDArray[np.uint8]:
    plane = np.zeros((side, side), np.float32)
    for step, weight in ((64, 30.0), (16, 30.0), (4, 18.0)):
        grains = rng.normal(0, 1, (side // step + 3, side // step + 3)).astype(np.float32)
        plane += weight * np.asarray(Image.fromarray(grains).resize((side, side), Image.Resampling.BICUBIC))
    colour = np.array([190.0, 120.0, 175.0]) + plane[:, :, None] * np.array([0.7, 1.0, 0.5])
    return np.clip(colour, 0, 235).astype(np.uint8)


def _encoded(tile: NDArray[np.uint8]) -> bytes:
    return bytes(
        imagecodecs.jpeg8_encode(tile, level=80, colorspace="rgb", outcolorspace="ycbcr", subsampling="420")
    )
