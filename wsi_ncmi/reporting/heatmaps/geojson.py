"""Tiles as GeoJSON that QuPath opens: geometry to the pixel, values as measurements, colours.

QuPath's form (``objectType`` ``tile``, ``measurements`` as an object of numbers, ``color`` as RGB) is that of
its own GeoJSON export since version 0.4.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from wsi_ncmi.core.files import atomic_path
from wsi_ncmi.reporting.heatmaps.colours import colours_of
from wsi_ncmi.reporting.heatmaps.scales import scaled
from wsi_ncmi.reporting.heatmaps.values import TileValues

__all__ = ["write_tiles_geojson"]


def write_tiles_geojson(
    path: Path, tiles: TileValues, *, coloured_by: str, scale: str = "percentile"
) -> None:
    """Writes a FeatureCollection with one polygon a tile, atomically and line by line.

    Every layer is a measurement; that of ``coloured_by`` is also there as ``<name> percentile``.

    Args:
        path: Where to.
        tiles: Tiles and values.
        coloured_by: Name of the layer that gives the colours.
        scale: Scale of the colours.

    Raises:
        InputError: No such layer or scale.
    """
    leading = tiles.layer(coloured_by)
    colours = colours_of(scaled(leading, scale)).tolist()
    names = [layer.name for layer in tiles.layers]
    columns = [layer.values.astype(np.float64).tolist() for layer in tiles.layers]
    ranks = scaled(leading, "percentile").astype(np.float64).tolist()
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as handle:
        handle.write('{"type": "FeatureCollection", "features": [')
        for row, (left, top, right, bottom) in enumerate(tiles.boxes.tolist()):
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


def _plain(value: float) -> float | int:
    """Whole numbers without a decimal point: half of a large file is coordinates."""
    return int(value) if value.is_integer() else value
