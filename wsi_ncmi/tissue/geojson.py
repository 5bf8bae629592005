"""Polygons as GeoJSON that QuPath opens, and back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import shapely
import shapely.geometry

from wsi_ncmi.errors import InputError
from wsi_ncmi.files import write_text

__all__ = ["Annotation", "read_geojson", "write_geojson"]

_COLOURS = {"tissue": [0, 160, 80], "tumor": [200, 0, 0]}


@dataclass(frozen=True)
class Annotation:
    """One annotated area: its polygon in level-0 pixels and its class name (``""`` where unclassified)."""

    polygon: shapely.Polygon
    name: str


def write_geojson(path: Path, polygons: Sequence[shapely.Polygon], name: str) -> None:
    """Writes polygons as a GeoJSON FeatureCollection of QuPath annotations, atomically.

    Args:
        path: Where to.
        polygons: In level-0 pixels, the coordinates QuPath uses.
        name: Class name of all of them.
    """
    features = [
        {
            "type": "Feature",
            "geometry": shapely.geometry.mapping(polygon),
            "properties": {
                "objectType": "annotation",
                "classification": {"name": name, "color": _COLOURS.get(name, [80, 80, 200])},
            },
        }
        for polygon in polygons
    ]
    write_text(path, json.dumps({"type": "FeatureCollection", "features": features}) + "\n")


def read_geojson(path: Path) -> list[Annotation]:
    """Reads polygons from GeoJSON: a FeatureCollection, a Feature, a list of features or a geometry.

    Raises:
        InputError: The file is no GeoJSON, or a geometry is not an area.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return [annotation for feature in _features(content) for annotation in _annotations(feature)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, shapely.errors.ShapelyError) as error:
        raise InputError(
            f"{path} can't be read as GeoJSON polygons ({' '.join(str(error).split())}); "
            "export annotations from QuPath as GeoJSON."
        ) from error


def _features(content: Any) -> list[Any]:
    if isinstance(content, list):
        return content
    if content["type"] == "FeatureCollection":
        return list(content["features"])
    return [content if content["type"] == "Feature" else {"geometry": content}]


def _annotations(feature: dict[str, Any]) -> list[Annotation]:
    properties = feature.get("properties") or {}
    name = str((properties.get("classification") or {}).get("name") or properties.get("name") or "")
    geometry = shapely.geometry.shape(feature["geometry"])
    parts = shapely.get_parts(geometry)
    if not all(isinstance(part, shapely.Polygon) for part in parts):
        raise ValueError(f"a {geometry.geom_type} is no area")
    return [Annotation(part, name) for part in parts]
