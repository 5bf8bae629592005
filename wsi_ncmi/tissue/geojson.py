"""Polygons as GeoJSON that QuPath opens, and back."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
import shapely.geometry

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import write_text
from wsi_ncmi.tissue.annotation import Annotation, Annotations, areas_of

__all__ = ["parse_geojson", "read_geojson", "write_annotations", "write_geojson"]

_COLOURS = {
    "tissue": [0, 160, 80], "tumor": [200, 0, 0], "pen": [0, 60, 200], "fold": [150, 80, 0],
    "border": [60, 60, 60], "blur": [0, 150, 150],
}  # fmt: skip
_OTHER_COLOUR = [80, 80, 200]
# QuPath's exports may hold cells, tiles and points beside annotations.
_DRAWN = {"annotation", "tma_core", "unknown"}
_LINES = (shapely.Point, shapely.MultiPoint, shapely.LineString, shapely.MultiLineString)


def write_geojson(path: Path, polygons: Sequence[shapely.Polygon], name: str) -> None:
    """Writes polygons of one class as a GeoJSON FeatureCollection of QuPath annotations, atomically.

    Args:
        path: Where to.
        polygons: In level-0 pixels, the coordinates QuPath uses.
        name: Class name of all of them.
    """
    write_annotations(path, {name: polygons})


def write_annotations(path: Path, polygons: Mapping[str, Sequence[shapely.Polygon]]) -> None:
    """Writes polygons of several classes as a GeoJSON FeatureCollection of QuPath annotations, atomically.

    Args:
        path: Where to.
        polygons: Class name to its polygons in level-0 pixels; each class gets its colour.
    """
    features = [
        {
            "type": "Feature",
            "geometry": shapely.geometry.mapping(polygon),
            "properties": {
                "objectType": "annotation",
                "classification": {"name": name, "color": _COLOURS.get(name, _OTHER_COLOUR)},
            },
        }
        for name, members in polygons.items()
        for polygon in members
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
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise unreadable(path.name, error) from error
    return list(parse_geojson(text, path.name))


def parse_geojson(text: str, name: str) -> Annotations:
    """Reads the areas of a GeoJSON text.

    Points and lines beside areas, and detections of QuPath, are left out with a note.

    Args:
        text: The content.
        name: The file's name, for messages.

    Raises:
        InputError: The text is no GeoJSON, or holds features and none of them is an area.
    """
    try:
        features = _features(json.loads(text))
        areas: list[Annotation] = []
        mended, skipped = 0, Counter[str]()
        for feature in features:
            if not isinstance(feature, dict):
                raise ValueError("a feature is no object")
            kind = (feature.get("properties") or {}).get("objectType") or "annotation"
            if kind not in _DRAWN:
                skipped[f"{kind} objects"] += 1
                continue
            with np.errstate(invalid="ignore"):  # coordinates that are no numbers are refused below
                geometry = shapely.geometry.shape(feature["geometry"])
            if len(features) > 1 and isinstance(geometry, _LINES):
                skipped["points or lines"] += 1
                continue
            polygons, crossed = areas_of([geometry])
            mended += crossed
            areas += [Annotation(polygon, _class_name(feature)) for polygon in polygons]
        if features and not areas:
            raise ValueError("it holds no area")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise unreadable(name, error) from error
    except shapely.errors.ShapelyError as error:
        raise unreadable(name, error) from error
    notes = [f"{count} {what} are no areas and were left out" for what, count in skipped.items()]
    if mended:
        notes.append(f"{mended} outlines that cross themselves were mended")
    return Annotations(areas, notes)


def unreadable(name: str, error: Exception) -> InputError:
    """The one sentence about a file that isn't what it should be."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if isinstance(error, KeyError):
        reason = f"{error} is missing"
    return InputError(
        f"{name} can't be read as GeoJSON polygons ({' '.join(reason.split())}); "
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


def _class_name(feature: dict[str, Any]) -> str:
    properties = feature.get("properties") or {}
    classification = properties.get("classification") or {}
    if isinstance(classification, str):
        return classification
    # QuPath writes derived classes ("Tumor: Positive") as a list of names.
    names = classification.get("names") or [classification.get("name") or properties.get("name") or ""]
    return ": ".join(str(name) for name in names)
