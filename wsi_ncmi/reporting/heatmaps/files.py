"""Heatmap files: pictures, pyramidal overlays and GeoJSON.

Overlays: pixel (i, j) of a level covers exactly ``downsample`` level-0 pixels along both axes, from the
slide's own corner, so that a program that knows both resolutions lays them over each other without any
registration. Where there is no tile they are transparent.

GeoJSON: QuPath's form (``objectType`` ``tile``, ``measurements`` as an object of numbers, ``color`` as RGB)
is that of its own export since version 0.4.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import atomic_path, distinct_file_names, parse_json, shortened, write_json
from wsi_ncmi.reporting.heatmaps.drawing import (
    blank_slide,
    draw_comparison,
    draw_gallery,
    draw_heatmap,
    rank_correlation,
    rasterise,
)
from wsi_ncmi.reporting.heatmaps.values import TileLayer, TileValues, colours_of, scale_title, scaled
from wsi_ncmi.slides import Slide, thumbnail
from wsi_ncmi.tissue.geojson import collection_head

if TYPE_CHECKING:
    from PIL import Image

_PICTURE_PX = 1024  # longest side of the slide in a picture
_TILE_PX = 256
_MIN_LEVEL_PX = 256
_MAX_FILE_NAME_BYTES = 215  # of 255, as a temporary name is longer
_MAX_PX = 1 << 26
_PIXELS_A_TILE = 16


def write_heatmaps(
    folder: Path,
    tiles: TileValues,
    slide: Slide | None,
    *,
    layers: Sequence[str],
    scales: Sequence[str],
    top: int,
) -> dict[str, Path]:
    """Writes ``<slide_id>_<layer>_<scale>.png`` for each layer and scale, and the gallery of the first layer.

    Their names are those of :func:`heatmap_path`.

    Args:
        folder: Where to; it exists.
        tiles: Tiles and values.
        slide: The open slide; None draws on white, without gallery.
        layers: Names of layers.
        scales: ``percentile``, ``absolute`` or both.
        top: Tiles of the gallery; 0 = none.

    Returns:
        Content → file.

    Raises:
        SlideReadError: Nothing of the slide can be read.
        InputError: No such layer or scale.
    """
    picture = _thumbnail(tiles, slide)
    files: dict[str, Path] = {}
    for name in layers:
        for scale in scales:
            path = heatmap_path(folder, tiles, name, f"_{scale}.png")
            _save(draw_heatmap(picture, tiles, name, scale), path)
            files[name if len(scales) == 1 else f"{name} {scale}"] = path
    if slide is not None and top > 0:
        path = heatmap_path(folder, tiles, layers[0], ".jpg", before="top_")
        _save(draw_gallery(slide, tiles, layers[0], top), path)
        files[f"top tiles by {layers[0]}"] = path
    return files


def write_comparison(
    folder: Path,
    first: TileValues,
    second: TileValues,
    slide: Slide | None,
    *,
    layers: Sequence[str],
    scales: Sequence[str],
    names: tuple[str, str],
) -> None:
    """Writes both models side by side for each layer that they share, and their rank correlations.

    Args:
        folder: Where to; it exists.
        first: Values of the first model.
        second: Values of the second.
        slide: The open slide; None draws on white.
        layers: Names of layers.
        scales: ``percentile``, ``absolute`` or both.
        names: Names of the models.
    """
    picture = _thumbnail(first, slide)
    common = [name for name in layers if any(layer.name == name for layer in second.layers)]
    for name in common:
        for scale in scales:
            drawn = draw_comparison(picture, first, second, name, scale, names)
            _save(drawn, heatmap_path(folder, first, name, f"_{scale}.compare.png"))
    correlations = {name: rank_correlation(first, second, name) for name in common}
    content = {"models": names, "rank_correlation": correlations}
    write_json(folder / f"{first.slide_id}.compare.json", content)


def heatmap_path(folder: Path, tiles: TileValues, layer_name: str, ending: str, *, before: str = "") -> Path:
    """``<slide_id>_<before><layer><ending>`` in a folder: another for every layer of a slide, never too long.

    Args:
        folder: The folder.
        tiles: All layers of the slide, whatever is drawn of them.
        layer_name: Which one the file shows.
        ending: Scale and kind of the file.
        before: What stands between slide and layer.
    """
    layer = distinct_file_names(each.name for each in tiles.layers)[layer_name]
    rest = f"_{before}{layer}{ending}"
    return folder / f"{shortened(tiles.slide_id, _MAX_FILE_NAME_BYTES - len(rest.encode()))}{rest}"


def _thumbnail(tiles: TileValues, slide: Slide | None) -> NDArray[np.uint8]:
    return blank_slide(tiles.size_level0) if slide is None else thumbnail(slide, _PICTURE_PX)


def _save(picture: Image.Image, path: Path) -> None:
    """Saves a PNG or JPEG, atomically."""
    with atomic_path(path) as temporary:
        if path.suffix == ".png":
            picture.save(temporary, format="PNG", compress_level=3)
        else:
            picture.save(temporary, format="JPEG", quality=90)


def overlay_downsample(tiles: TileValues) -> int:
    """Level-0 pixels for one of the finest overlay pixel: a power of two, some 16 pixels a tile."""
    target = max(1.0, min(tiles.tile_level0) / _PIXELS_A_TILE)
    downsample = 1 << math.floor(math.log2(target))
    while math.prod(_size(tiles, downsample)) > _MAX_PX:
        downsample *= 2
    return downsample


def write_overlay(
    path: Path, tiles: TileValues, layer_name: str, scale: str, origin: tuple[int, int] = (0, 0)
) -> int:
    """Writes the overlay, atomically: of the whole slide, which its description says where QuPath shows less.

    Args:
        path: Where to, ``.tif``.
        tiles: Tiles and values.
        layer_name: Which values.
        scale: ``percentile`` or ``absolute``.
        origin: Level-0 pixel from which QuPath counts (``Slide.origin``).

    Returns:
        Level-0 pixels for one of the finest level's pixels.

    Raises:
        InputError: No such layer or scale.
    """
    import tifffile

    layer = tiles.layer(layer_name)
    positions = scaled(layer, scale)
    first = overlay_downsample(tiles)
    downsamples = [first]
    while max(_size(tiles, downsamples[-1])) > _MIN_LEVEL_PX:
        downsamples.append(downsamples[-1] * 2)
    title = scale_title(layer, scale)
    if any(origin):
        place = f"{origin[0]}, {origin[1]} px"
        title += f" (of the whole slide; the scanned area, all that QuPath shows, begins at {place})"
    with atomic_path(path) as temporary, tifffile.TiffWriter(temporary, bigtiff=False) as file:
        for number, downsample in enumerate(downsamples):
            options: dict[str, Any] = (
                {} if tiles.mpp is None else {"resolution": tuple(1e4 / (m * downsample) for m in tiles.mpp)}
            )
            file.write(
                _picture(tiles, positions, downsample),
                photometric="rgb",
                extrasamples=("unassalpha",),
                tile=(_TILE_PX, _TILE_PX),
                compression="adobe_deflate",
                predictor=True,
                subfiletype=1 if number else 0,
                description=None if number else title.encode("ascii", "replace").decode(),
                metadata=None,
                resolutionunit="CENTIMETER" if tiles.mpp else None,
                software="wsi-ncmi",
                **options,
            )
    return first


def _size(tiles: TileValues, downsample: int) -> tuple[int, int]:
    width, height = tiles.size_level0
    return -(-width // downsample), -(-height // downsample)


def _picture(tiles: TileValues, positions: NDArray[np.float32], downsample: int) -> NDArray[np.uint8]:
    width, height = _size(tiles, downsample)
    if width * height > _MAX_PX:
        raise InputError(f"An overlay of {width} × {height} px is more than a picture may have.")
    window = (0.0, 0.0, float(width * downsample), float(height * downsample))
    mean, covered = rasterise(tiles.boxes, positions, window, (height, width))
    alpha = np.rint(covered * 255).astype(np.uint8)
    return np.concatenate((colours_of(mean), alpha[..., None]), axis=2)


def write_tiles_geojson(
    path: Path,
    tiles: TileValues,
    *,
    coloured_by: str,
    scale: str = "percentile",
    origin: tuple[int, int] = (0, 0),
) -> None:
    """Writes a FeatureCollection with one polygon a tile, atomically and line by line.

    Every layer is a measurement; that of ``coloured_by`` is also there as ``<name> percentile``.

    Args:
        path: Where to.
        tiles: Tiles and values.
        coloured_by: Name of the layer that gives the colours.
        scale: Scale of the colours.
        origin: Level-0 pixel from which QuPath counts (``Slide.origin``).

    Raises:
        InputError: No such layer or scale.
    """
    leading = tiles.layer(coloured_by)
    colours = colours_of(scaled(leading, scale)).tolist()
    names = [layer.name for layer in tiles.layers]
    columns = [layer.values.astype(np.float64).tolist() for layer in tiles.layers]
    ranks = scaled(leading, "percentile").astype(np.float64).tolist()
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as handle:
        handle.write(json.dumps(collection_head(origin))[:-1] + ', "features": [')
        for row, (left, top, right, bottom) in enumerate((tiles.boxes - origin * 2).tolist()):
            ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
            feature = {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [[[_plain(x), _plain(y)] for x, y in ring]]},
                "properties": {
                    "objectType": "tile",
                    "color": colours[row],
                    "measurements": {
                        **{name: column[row] for name, column in zip(names, columns, strict=True)},
                        f"{coloured_by} percentile": round(ranks[row], 6),
                    },
                },
            }
            handle.write(("," if row else "") + "\n" + json.dumps(feature, allow_nan=False))
        handle.write("\n]}\n")


def read_tiles_geojson(
    path: Path, slide_id: str, size_level0: tuple[int, int], origin: tuple[int, int] = (0, 0)
) -> TileValues:
    """Reads what :func:`write_tiles_geojson` wrote.

    Args:
        path: The file.
        slide_id: The slide.
        size_level0: Its width and height in level-0 pixels.
        origin: As it was written with.

    Raises:
        InputError: It is none of these files.
    """
    try:
        features = parse_json(path.read_bytes())["features"]
        rings = np.array([f["geometry"]["coordinates"][0] for f in features], np.float64).reshape(-1, 5, 2)
        told = [feature["properties"]["measurements"] for feature in features]
        names = list(told[0])[:-1]  # the last repeats one as percentile
        columns = {name: np.array([values[name] for values in told], np.float32) for name in names}
        corners, tile = rings[:, 0] + origin, np.ptp(rings[0], axis=0)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path.name} holds no tiles of predict ({error}); predict the slide again."
        ) from error
    layers = [
        TileLayer(name, values, "attention" if name == "attention" else "evidence")
        for name, values in columns.items()
    ]
    tile_level0 = (float(tile[0]), float(tile[1]))
    return TileValues(slide_id, corners.round().astype(np.int64), tile_level0, size_level0, tuple(layers))


def _plain(value: float) -> float | int:
    """Whole numbers without a decimal point: half of a large file is coordinates."""
    return int(value) if value.is_integer() else value
