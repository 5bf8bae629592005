"""Tiled, pyramidal TIFF slides as Aperio scanners and CAMELYON's converters write them.

Layouts (facts from the OpenSlide format pages and from real files):

- ``aperio``: classic TIFF; directory 0 is the tiled full image whose ImageDescription starts with ``Aperio
  Image Library`` and carries ``AppMag`` and ``MPP``; directory 1 is a stripped thumbnail; then tiled levels
  4 and 16 times smaller.
- ``bigtiff``: BigTIFF, levels of factor 2, microns per pixel only as resolution tags per centimetre, and
  tiles of pure background absent (offset 0, byte count 0), which OpenSlide reads as transparent.

Only one level-0 tile is in memory at a time; the next level is collected while level 0 is written.
"""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import atomic_path
from wsi_ncmi.synthesis.reduction import ReducedLevel, encode_tile, tile_jobs

__all__ = [
    "TileCallback",
    "aperio_description",
    "check_pyramid",
    "default_factors",
    "default_tile_px",
    "resolution_tags",
    "write_pyramid",
]

_APERIO_FACTORS = (4, 16)
_SMALLEST_LEVEL_PX = 256


def resolution_tags(mpp: float | None, factor: int) -> dict[str, Any]:
    """Resolution tags of one level: pixels per centimetre, or no unit where mpp is None."""
    if mpp is None:
        return {"resolution": (1, 1), "resolutionunit": "NONE"}
    # As a fraction of integers (pixels per centimetre), so that no rounding hides in the tag.
    per_cm = Fraction(10_000) / (Fraction(str(mpp)) * factor)
    pair = (per_cm.numerator, per_cm.denominator)
    return {"resolution": (pair, pair), "resolutionunit": "CENTIMETER"}


def aperio_description(
    width: int, height: int, tile_px: int, quality: int, mpp: float | None, magnification: int | None
) -> str:
    """ImageDescription of a full-image directory, as Aperio's scanners write it."""
    text = f"Aperio Image Library v12.0.15 (wsi-ncmi synthetic)\r\n{width}x{height} [0,0 {width}x{height}] "
    text += f"({tile_px}x{tile_px}) JPEG/YCC Q={quality}"
    if magnification is not None:
        text += f"|AppMag = {magnification}"
    return text if mpp is None else f"{text}|MPP = {mpp}"


def default_tile_px(layout: str) -> int:
    """Edge of a tile where the caller doesn't say."""
    return 256 if layout == "aperio" else 512


def default_factors(layout: str, width: int, height: int) -> tuple[int, ...]:
    """4 and 16 (aperio), or powers of 2 while the longer side has 256 px and more (bigtiff)."""
    if layout == "aperio":
        return _APERIO_FACTORS
    factors: list[int] = []
    factor = 2
    while max(width, height) // factor >= _SMALLEST_LEVEL_PX and min(width, height) // factor >= 1:
        factors.append(factor)
        factor *= 2
    return tuple(factors)


def check_pyramid(path: Path, width: int, height: int, tile_px: int, factors: tuple[int, ...]) -> None:
    """Raises InputError where size, tile edge and downsamplings make no pyramid."""
    chain = (1, *factors)
    good = all(b > a and b % a == 0 for a, b in zip(chain, factors, strict=False))
    if width < 1 or height < 1 or min(width, height) // chain[-1] < 1 or not good:
        raise InputError(
            f"{path.name}: {width} × {height} px with levels {factors} is no pyramid; choose other factors."
        )
    if (
        tile_px % 16
        or tile_px < 16
        or any(tile_px % (b // a) for a, b in zip(chain[:1], factors[:1], strict=True))
    ):
        raise InputError(
            f"{path.name}: tile_px is {tile_px}; choose a multiple of 16 that the first factor divides."
        )


#: ``(x_px, y_px) -> uint8 (tile_px, tile_px, 3 or 4)`` or None for a tile of pure background.
TileCallback = Callable[[int, int], "NDArray[np.uint8] | None"]
Compression = Literal["jpeg", "deflate"]
_THUMBNAIL_PX = 512


@dataclass(frozen=True)
class _Format:
    """The form that all directories of one file share."""

    tile_px: int
    compression: Compression
    quality: int
    absent: bool
    background: tuple[int, int, int]


def write_pyramid(
    path: Path,
    pixels: NDArray[np.uint8] | TileCallback,
    mpp: float | None,
    *,
    layout: Literal["aperio", "bigtiff"] = "aperio",
    width_px: int | None = None,
    height_px: int | None = None,
    tile_px: int | None = None,
    magnification: int | None = None,
    compression: Compression = "jpeg",
    quality: int = 80,
    absent: bool | None = None,
    background: tuple[int, int, int] = (255, 255, 255),
    factors: tuple[int, ...] | None = None,
) -> None:
    """Writes one pyramidal slide atomically; the same pixels give the same bytes.

    Args:
        path: The file to make (its suffix is the caller's choice).
        pixels: Level 0 as an array (height, width, 3), or a callback that draws one tile: it gets the
            level-0 pixel (x, y) of the tile's corner, in raster order, and returns uint8 (tile_px, tile_px,
            3) RGB or (…, 4) with an ignored fourth channel, or None where there is nothing but background.
            Pixels beyond the slide's edge are ignored.
        mpp: Microns per level-0 pixel, or None for a file that doesn't say.
        layout: ``aperio`` or ``bigtiff``.
        width_px: Level-0 width; needed with a callback.
        height_px: Level-0 height; needed with a callback.
        tile_px: Tile edge, a multiple of 16; 256 (aperio) or 512 (bigtiff) by default.
        magnification: Aperio's ``AppMag``; left out when None.
        compression: ``jpeg`` (YCbCr 4:2:0) or ``deflate`` (lossless).
        quality: JPEG quality, 1–100.
        absent: Whether tiles of pure background are left out of the file; by default only in ``bigtiff``.
            In an array a tile is background when all its pixels equal ``background``.
        background: RGB of background tiles that are written, and of absent ones in the smaller levels.
        factors: Downsamplings of the smaller levels; by default 4 and 16 (aperio), or powers of 2 until
            the level is smaller than 256 px (bigtiff). Each must be a multiple of the one before.

    Raises:
        InputError: Size, tile edge or factors make no pyramid.
        OSError: The file can't be written.
    """
    callback, width, height = _source(pixels, width_px, height_px, background, tile_px, layout)
    edge = tile_px or default_tile_px(layout)
    if factors is None:
        factors = default_factors(layout, width, height)
    check_pyramid(path, width, height, edge, factors)
    form = _Format(edge, compression, quality, layout == "bigtiff" if absent is None else absent, background)
    description = aperio_description(width, height, edge, quality, mpp, magnification)
    with atomic_path(path) as temporary:
        _write(
            temporary,
            callback,
            ReducedLevel.blank(width, height, 1, form.background),
            factors,
            form,
            layout,
            mpp if layout == "bigtiff" else None,
            description if layout == "aperio" else None,
        )


def _write(
    path: Path,
    callback: TileCallback,
    base: ReducedLevel,
    factors: tuple[int, ...],
    form: _Format,
    layout: str,
    mpp: float | None,
    description: str | None,
) -> None:
    import tifffile

    common: dict[str, Any] = {"metadata": None, "software": False, "dtype": "uint8"}
    with (
        tifffile.TiffWriter(path, bigtiff=layout == "bigtiff", byteorder="<") as writer,
        warnings.catch_warnings(),
    ):
        # tifffile remarks that it can't see inside tiles that come ready encoded.
        warnings.simplefilter("ignore", UserWarning)
        below = (
            ReducedLevel.blank(
                base.width // factors[0], base.height // factors[0], factors[0], form.background
            )
            if factors
            else None
        )
        writer.write(
            _first_level(callback, base, below, form),
            shape=(base.height, base.width, 3),
            description=description,
            **_tile_tags(form),
            **resolution_tags(mpp, 1),
            **common,
        )
        levels: list[ReducedLevel] = []
        while below is not None:
            levels.append(below)
            rest = [f for f in factors if f > below.factor]
            below = below.reduced(rest[0] // below.factor, form.background) if rest else None
        if layout == "aperio" and levels:
            small = levels[-1].thumbnail(_THUMBNAIL_PX)
            writer.write(
                small,
                photometric="rgb",
                compression="deflate",
                rowsperstrip=16,
                description=f"{description}|thumbnail" if description else None,
                **common,
            )
        for level in levels:
            writer.write(
                _lower_level(level, form),
                shape=(level.height, level.width, 3),
                subfiletype=0 if layout == "aperio" else 1,
                description=description,
                **_tile_tags(form),
                **resolution_tags(mpp, level.factor),
                **common,
            )


def _first_level(
    callback: TileCallback, base: ReducedLevel, below: ReducedLevel | None, form: _Format
) -> Iterator[bytes]:
    blank: bytes | None = None
    for x, y in tile_jobs(base.width, base.height, form.tile_px):
        tile = callback(x, y)
        if tile is None and form.absent:
            yield b""
            continue
        if below is not None:
            below.mark(x, y, form.tile_px)
        if tile is not None:
            if below is not None:
                below.collect(tile, x, y)
            yield encode_tile(tile, form.compression, form.quality)
            continue
        if blank is None:
            flat = np.full((form.tile_px, form.tile_px, 3), form.background, dtype=np.uint8)
            blank = encode_tile(flat, form.compression, form.quality)
        yield blank


def _lower_level(level: ReducedLevel, form: _Format) -> Iterator[bytes]:
    for x, y in tile_jobs(level.width, level.height, form.tile_px):
        if form.absent and not level.is_present(x, y, form.tile_px):
            yield b""
        else:
            yield encode_tile(level.tile(x, y, form.tile_px, form.background), form.compression, form.quality)


def _tile_tags(form: _Format) -> dict[str, Any]:
    tags: dict[str, Any] = {"tile": (form.tile_px, form.tile_px), "compression": form.compression}
    if form.compression == "jpeg":
        return {**tags, "photometric": "ycbcr", "subsampling": (2, 2)}
    return {**tags, "photometric": "rgb"}


def _source(
    pixels: NDArray[np.uint8] | TileCallback,
    width_px: int | None,
    height_px: int | None,
    background: tuple[int, int, int],
    tile_px: int | None,
    layout: str,
) -> tuple[TileCallback, int, int]:
    if not isinstance(pixels, np.ndarray):
        if width_px is None or height_px is None:
            raise InputError(
                "write_pyramid needs width_px and height_px when the pixels come from a callback."
            )
        return pixels, width_px, height_px
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise InputError(
            f"write_pyramid needs a uint8 array (height, width, 3), not {pixels.dtype} {pixels.shape}; "
            "convert it to RGB first."
        )
    height, width = pixels.shape[:2]
    edge = tile_px or default_tile_px(layout)
    whole = ReducedLevel(width, height, 1, pixels, np.ones((1, 1), dtype=bool))
    colour = np.array(background, dtype=np.uint8)

    def callback(x: int, y: int) -> NDArray[np.uint8] | None:
        tile = whole.tile(x, y, edge, background)
        return None if bool((tile == colour).all()) else tile

    return callback, width, height
