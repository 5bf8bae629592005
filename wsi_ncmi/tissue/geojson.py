"""Annotated areas in level-0 pixels, and GeoJSON that QuPath opens."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import shapely
import shapely.affinity
import shapely.geometry

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import parse_json, write_text


@dataclass(frozen=True)
class Annotation:
    """One annotated area: its polygon in level-0 pixels and its class name (``""`` where unclassified)."""

    polygon: shapely.Polygon
    name: str


class Annotations(Sequence[Annotation]):
    """The areas of one file, in its order.

    Attributes:
        notes: Sentences about what was repaired or left out.
    """

    def __init__(self, areas: Iterable[Annotation], notes: Iterable[str] = ()) -> None:
        self._areas = tuple(areas)
        self.notes = tuple(notes)

    @overload
    def __getitem__(self, index: int) -> Annotation: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Annotation, ...]: ...
    def __getitem__(self, index: int | slice) -> Annotation | tuple[Annotation, ...]:
        return self._areas[index]

    def __len__(self) -> int:
        return len(self._areas)

    @property
    def sha256(self) -> str:
        """Identity of the areas: the same for the same classes and outlines, whatever the layout of the file.

        Order of features, first vertex and direction of a ring, white space and colours don't count.
        """
        rows = sorted(
            (area.name, shapely.to_wkb(shapely.normalize(area.polygon), hex=True, byte_order=1))
            for area in self._areas
        )
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def areas_of(geometries: Sequence[shapely.Geometry]) -> tuple[list[shapely.Polygon], int]:
    """The valid polygons of geometries that are areas.

    Args:
        geometries: Polygons, multi-polygons, or collections of them.

    Returns:
        The polygons, and the number of self-crossing outlines that were repaired.

    Raises:
        ValueError: One of them is no area, or a coordinate is no finite number.
    """
    # Twice: a collection may hold multi-polygons.
    parts = shapely.get_parts(shapely.get_parts(np.asarray(geometries, dtype=object)))
    for part in parts:
        if not isinstance(part, shapely.Polygon) or part.is_empty:
            raise ValueError(f"a {part.geom_type} is no area")
    if not len(parts):
        raise ValueError("an empty geometry is no area")
    if not np.isfinite(shapely.get_coordinates(parts)).all():
        raise ValueError("a coordinate is no finite number")
    # Outlines drawn by hand may cross themselves; any later overlay of them would fail.
    sound = shapely.is_valid(parts)
    mended = [part if good else shapely.make_valid(part) for part, good in zip(parts, sound, strict=True)]
    pieces = shapely.get_parts(shapely.get_parts(np.asarray(mended, dtype=object)))
    return [piece for piece in pieces if isinstance(piece, shapely.Polygon)], int((~sound).sum())


_COLOURS = {
    "tissue": [0, 160, 80], "tumor": [200, 0, 0], "pen": [0, 60, 200], "fold": [150, 80, 0],
    "border": [60, 60, 60], "blur": [0, 150, 150],
}  # fmt: skip
_OTHER_COLOUR = [80, 80, 200]
# QuPath's exports may hold cells, tiles and points beside annotations.
_DRAWN = {"annotation", "tma_core", "unknown"}
_LINES = (shapely.Point, shapely.MultiPoint, shapely.LineString, shapely.MultiLineString)


_OWN_MEMBER, _ORIGIN = "wsi_ncmi", "origin_level0"
# Areas drawn along the edge of the picture may reach beyond it by a share of its sides.
_BEYOND = 0.01


def collection_head(origin: tuple[int, int]) -> dict[str, Any]:
    """Members of a collection besides its features, with the place pixels are counted from if not 0, 0.

    Args:
        origin: Level-0 pixel at which coordinates are 0: that from which QuPath counts (``Slide.origin``).
    """
    return {"type": "FeatureCollection"} | ({_OWN_MEMBER: {_ORIGIN: list(origin)}} if any(origin) else {})


def write_geojson(
    path: Path, polygons: Sequence[shapely.Polygon], name: str, origin: tuple[int, int] = (0, 0)
) -> None:
    """Writes polygons of one class as a GeoJSON FeatureCollection of QuPath annotations, atomically.

    Args:
        path: Where to.
        polygons: In level-0 pixels.
        name: Class name of all of them.
        origin: Level-0 pixel from which QuPath counts (``Slide.origin``).
    """
    write_annotations(path, {name: polygons}, origin)


def write_annotations(
    path: Path, polygons: Mapping[str, Sequence[shapely.Polygon]], origin: tuple[int, int] = (0, 0)
) -> None:
    """Writes polygons of several classes as a GeoJSON FeatureCollection of QuPath annotations, atomically.

    Args:
        path: Where to.
        polygons: Class name to its polygons in level-0 pixels; each class gets its colour.
        origin: Level-0 pixel from which QuPath counts (``Slide.origin``).
    """
    features = [
        {
            "type": "Feature",
            "geometry": shapely.geometry.mapping(_moved(polygon, -origin[0], -origin[1])),
            "properties": {
                "objectType": "annotation",
                "classification": {"name": name, "color": _COLOURS.get(name, _OTHER_COLOUR)},
            },
        }
        for name, members in polygons.items()
        for polygon in members
    ]
    write_text(path, json.dumps({**collection_head(origin), "features": features}) + "\n")


def _moved(polygon: shapely.Polygon, x: float, y: float) -> shapely.Polygon:
    return shapely.affinity.translate(polygon, x, y) if x or y else polygon


def read_geojson(path: Path, bounds: tuple[int, int, int, int] | None = None) -> list[Annotation]:
    """Reads polygons from GeoJSON: a FeatureCollection, a Feature, a list of features or a geometry.

    Args:
        path: The file.
        bounds: As :func:`parse_geojson` takes them.

    Returns:
        The areas in the file's order, each valid: multi-polygons and self-crossing outlines come in parts.

    Raises:
        InputError: The file is no GeoJSON, or a geometry is not an area.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise _unreadable(path.name, error) from error
    return list(parse_geojson(text, path.name, bounds))


def parse_geojson(text: str, name: str, bounds: tuple[int, int, int, int] | None = None) -> Annotations:
    """Reads the areas of a GeoJSON text.

    Points and lines beside areas, and detections of QuPath, are left out with a note.

    Args:
        text: The content.
        name: The file's name, for messages.
        bounds: The slide's scanned area (``Slide.bounds``), from whose corner QuPath counts; coordinates that
            leave it and fit the whole slide are taken as the whole slide's.

    Raises:
        InputError: The text is no GeoJSON, or holds features and none of them is an area.
    """
    try:
        content = parse_json(text)
        features = _features(content)
        areas: list[Annotation] = []
        mended, skipped = 0, Counter[str]()
        for feature in features:
            if not isinstance(feature, dict):
                raise ValueError("a feature is no object")
            properties = feature.get("properties") or {}
            kind = properties.get("objectType") or properties.get("object_type") or "annotation"  # QuPath 0.2
            if kind not in _DRAWN:
                skipped[f"{kind} objects"] += 1
                continue
            if feature["geometry"] is None:  # valid: "an unlocated feature" (RFC 7946, 3.2)
                skipped["features without a place"] += 1
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
        areas, placed = _placed(areas, content, bounds)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _unreadable(name, error) from error
    except shapely.errors.ShapelyError as error:
        raise _unreadable(name, error) from error
    notes = [f"{count} {what} are no areas and were left out" for what, count in skipped.items()]
    if mended:
        notes.append(f"{mended} outlines that cross themselves were mended")
    return Annotations(areas, [*notes, placed] if placed else notes)


def _placed(
    areas: list[Annotation], content: Any, bounds: tuple[int, int, int, int] | None
) -> tuple[list[Annotation], str]:
    """Areas in level-0 pixels of the whole slide, and how they were placed, for slides that QuPath crops."""
    if isinstance(content, dict) and _OWN_MEMBER in content:
        (x, y), note = content[_OWN_MEMBER][_ORIGIN], ""
    elif areas and bounds is not None and any(bounds[:2]):
        x, y, width, height = bounds
        drawn = shapely.total_bounds([area.polygon for area in areas]) / (width, height, width, height)
        in_area = bool((drawn[:2] >= -_BEYOND).all() and (drawn[2:] <= 1 + _BEYOND).all())
        drawn -= np.array((x / width, y / height) * 2)
        in_slide = bool((drawn[:2] >= -_BEYOND).all() and (drawn[2:] <= 1 + _BEYOND).all())
        if in_slide and not in_area:
            return (
                areas,
                "annotations are counted from the slide's own corner, not from that of its scanned area",
            )
        note = f"annotations are counted from the scanned area's corner at {x}, {y}, as QuPath does"
    else:
        return areas, ""
    return [Annotation(_moved(area.polygon, x, y), area.name) for area in areas], note


def _unreadable(name: str, error: Exception) -> InputError:
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
