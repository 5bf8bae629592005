"""Attention of a slide's tiles as GeoJSON that QuPath opens."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.files import write_text

__all__ = ["write_attention_geojson"]


def write_attention_geojson(
    path: Path,
    coords: NDArray[np.int64],
    size_level0: tuple[float, float],
    attention: NDArray[np.float32],
) -> None:
    """Writes one QuPath tile per bag instance with its attention as measurements, atomically.

    Args:
        path: Where to.
        coords: Level-0 top-left corners, int64 (N, 2).
        size_level0: Width and height of a tile in level-0 pixels.
        attention: float32 (N,), summing to 1.
    """
    order = attention.argsort(kind="stable").argsort(kind="stable")
    percentile = (order + 1) / max(len(attention), 1)
    width, height = size_level0
    features = []
    for (x, y), weight, rank in zip(coords.tolist(), attention.tolist(), percentile.tolist(), strict=True):
        ring = [[x, y], [x + width, y], [x + width, y + height], [x, y + height], [x, y]]
        features.append(
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [ring]},
                "properties": {
                    "objectType": "tile",
                    "measurements": {"attention": weight, "attention percentile": rank},
                },
            }
        )
    write_text(path, json.dumps({"type": "FeatureCollection", "features": features}) + "\n")
