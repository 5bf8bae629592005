"""Polygons as GeoJSON that QuPath opens, and back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
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

    Args:
        path: The file.

    Returns:
        The areas in the file's order, each valid: multi-polygons and self-crossing outlines come in parts.

    Raises:
        InputError: The file is no GeoJSON, or a geometry is not an area.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return [annotation for feature in _features(content) for annotation in _annotations(feature)]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _unreadable(path, error) from error
    except shapely.errors.ShapelyError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if isinstance(error, KeyError):
        reason = f"{error} is missing"
    return InputError(
        f"{path.name} can't be read as GeoJSON polygons ({' '.join(reason.split())}); "
        "export annotations from QuPath as GeoJSON."
    )


def _features(content: Any) -> list[Any]:
    if isinstance(content, list):
        return content
    if not isinstance(content, dict):
        raise ValueError("it holds no features")
    if content["type"] == "FeatureCollection":
        return list(content["features"])
    return [content if content["type"] == "Feature" else {"geometry": content}]


def _annotations(feature: Any) -> list[Annotation]:
    if not isinstance(feature, dict):
        raise ValueError("a feature is no object")
    properties = feature.get("properties") or {}
    name = str((properties.get("classification") or {}).get("name") or properties.get("name") or "")
    with np.errstate(invalid="ignore"):  # coordinates that are no numbers are refused below
        geometry = shapely.geometry.shape(feature["geometry"])
    return [Annotation(area, name) for area in _areas(geometry)]


def _areas(geometry: shapely.Geometry) -> list[shapely.Polygon]:
    # Twice: a collection may hold multi-polygons.
    parts = shapely.get_parts(shapely.get_parts(geometry))
    if not len(parts) or not all(isinstance(part, shapely.Polygon) and not part.is_empty for part in parts):
        raise ValueError(f"a {geometry.geom_type} is no area")
    if not np.isfinite(shapely.get_coordinates(parts)).all():
        raise ValueError("a coordinate is no finite number")
    # Outlines drawn by hand cross themselves; left so, every later overlay of them would fail.
    sound = [part if part.is_valid else shapely.make_valid(part) for part in parts]
    pieces = shapely.get_parts(shapely.get_parts(sound))
    return [piece for piece in pieces if isinstance(piece, shapely.Polygon)]
