"""A heatmap as a picture of several resolutions that lies over the slide: pyramidal, tiled RGBA TIFF.

Pixel (i, j) of a level covers exactly ``downsample`` level-0 pixels along both axes, from the slide's own
corner, so that a program that knows both resolutions lays them over each other without any registration.
Where there is no tile it is transparent.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import atomic_path
from wsi_ncmi.reporting.heatmaps.colours import colours_of
from wsi_ncmi.reporting.heatmaps.raster import rasterise
from wsi_ncmi.reporting.heatmaps.scales import scale_title, scaled
from wsi_ncmi.reporting.heatmaps.values import TileValues

__all__ = ["overlay_downsample", "write_overlay"]

_TILE_PX = 256
_SMALLEST_PX = 256
_MOST_PX = 1 << 26
_PIXELS_A_TILE = 16


def overlay_downsample(tiles: TileValues) -> int:
    """Level-0 pixels for one of the finest overlay pixel: a power of two, some 16 pixels a tile."""
    wanted = max(1.0, min(tiles.tile_level0) / _PIXELS_A_TILE)
    downsample = 1 << math.floor(math.log2(wanted))
    while math.prod(_size(tiles, downsample)) > _MOST_PX:
        downsample *= 2
    return downsample


def write_overlay(
    path: Path, tiles: TileValues, layer_name: str, scale: str, *, mpp: tuple[float, float] | None = None
) -> int:
    """Writes the overlay, atomically.

    Args:
        path: Where to, ``.tif``.
        tiles: Tiles and values.
        layer_name: Which values.
        scale: ``percentile`` or ``absolute``.
        mpp: µm per level-0 pixel along x and y, for the resolution tags.

    Returns:
        Level-0 pixels for one of the finest level's pixels.

    Raises:
        InputError: No such layer or scale.
    """
    import tifffile

    layer = tiles.layer(layer_name)
    places = scaled(layer, scale)
    first = overlay_downsample(tiles)
    downsamples = [first]
    while max(_size(tiles, downsamples[-1])) > _SMALLEST_PX:
        downsamples.append(downsamples[-1] * 2)
    with atomic_path(path) as temporary, tifffile.TiffWriter(temporary, bigtiff=False) as file:
        for number, downsample in enumerate(downsamples):
            options: dict[str, Any] = (
                {} if mpp is None else {"resolution": tuple(1e4 / (m * downsample) for m in mpp)}
            )
            file.write(
                _picture(tiles, places, downsample),
                photometric="rgb",
                extrasamples=("unassalpha",),
                tile=(_TILE_PX, _TILE_PX),
                compression="adobe_deflate",
                predictor=True,
                subfiletype=1 if number else 0,
                description=scale_title(layer, scale).encode("ascii", "replace").decode()
                if not number
                else None,
                metadata=None,
                resolutionunit="CENTIMETER" if mpp else None,
                software="wsi-ncmi",
                **options,
            )
    return first


def _size(tiles: TileValues, downsample: int) -> tuple[int, int]:
    width, height = tiles.size_level0
    return -(-width // downsample), -(-height // downsample)


def _picture(tiles: TileValues, places: NDArray[np.float32], downsample: int) -> NDArray[np.uint8]:
    width, height = _size(tiles, downsample)
    if width * height > _MOST_PX:
        raise InputError(f"An overlay of {width} × {height} px is more than a picture may have.")
    window = (0.0, 0.0, float(width * downsample), float(height * downsample))
    mean, covered = rasterise(tiles.boxes, places, window, (height, width))
    alpha = np.rint(covered * 255).astype(np.uint8)
    return np.concatenate((colours_of(mean), alpha[..., None]), axis=2)
