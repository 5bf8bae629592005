"""ASAP's XML annotations, the format of the CAMELYON challenges.

ASAP writes one ``Annotation`` an object with its ``Type``, its group (``PartOfGroup``) and its ``Coordinate``
elements in level-0 pixels. The parser refuses a document type outright, so no entity is ever expanded.
"""

from collections import Counter
from xml.parsers import expat

import numpy as np
import shapely
from numpy.typing import NDArray

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.tissue.geojson import Annotation, Annotations, areas_of

_ROOT = "ASAP_Annotations"
_AREAS = {"polygon", "rectangle", "spline"}
_SPLINE_STEPS = 8
_NO_GROUP = {"none", "no group", ""}


def parse_asap(data: bytes, name: str) -> Annotations:
    """Reads the areas of an ASAP file; the class name of an area is its group.

    Dots, point sets and measurements are left out with a note.

    Args:
        data: The file's bytes.
        name: The file's name, for messages.

    Raises:
        InputError: It is no ASAP XML, has a document type, or holds no area.
    """
    content = _Content()
    try:
        content.parse(data)
        areas: list[Annotation] = []
        mended = 0
        for group, kind, points in content.shapes:
            outline = np.array([point for _, point in sorted(points, key=lambda item: item[0])])
            ring = _spline(outline) if kind == "spline" else outline
            polygons, crossed = areas_of([shapely.Polygon(ring)])
            mended += crossed
            areas += [Annotation(polygon, group) for polygon in polygons]
        if not areas:
            raise ValueError("it holds no area")
    except (ValueError, LookupError, expat.ExpatError, shapely.errors.ShapelyError) as error:
        if content.root not in ("", _ROOT):
            foreign = f"XML with the root {content.root}"
            whose = "ImageScope's or HALO's XML" if content.root == "Annotations" else foreign
            raise InputError(
                f"{name} is {whose}, no annotations of QuPath or ASAP: convert its outlines to GeoJSON."
            ) from error
        reason = f"{error} is missing" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise InputError(
            f"{name} can't be read as ASAP annotations ({reason}); save them from ASAP as XML again."
        ) from error
    notes = [f"{count} {what} are no areas and were left out" for what, count in content.skipped.items()]
    if mended:
        notes.append(f"{mended} outlines that cross themselves were mended")
    return Annotations(areas, notes)


class _Content:
    """Content of the file's elements, as expat reports them."""

    def __init__(self) -> None:
        self.shapes: list[tuple[str, str, list[tuple[int, tuple[float, float]]]]] = []
        self.skipped: Counter[str] = Counter()
        self.root = ""
        self._depth = 0

    def parse(self, data: bytes) -> None:
        parser = expat.ParserCreate()
        parser.StartDoctypeDeclHandler = self._refuse
        parser.EntityDeclHandler = self._refuse
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.Parse(data, True)
        for _, kind, points in self.shapes:
            if len(points) < 3:
                self.skipped[f"{kind}s of fewer than three points"] += 1
        self.shapes = [shape for shape in self.shapes if len(shape[2]) >= 3]

    def _refuse(self, *_: object) -> None:
        raise ValueError("it declares a document type or entities")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth == 1:
            self.root = tag
            if tag != _ROOT:
                raise ValueError("it is another program's")
        if tag == "Annotation":
            kind = attributes.get("Type", "Polygon").lower()
            group = attributes.get("PartOfGroup", "").strip()
            self._points: list[tuple[int, tuple[float, float]]] | None = None
            if kind in _AREAS:
                self._points = []
                self.shapes.append(("" if group.lower() in _NO_GROUP else group, kind, self._points))
            else:
                self.skipped[f"{kind} objects"] += 1
        elif tag == "Coordinate" and self._points is not None:
            order = int(attributes.get("Order", len(self._points)))
            self._points.append((order, (_number(attributes["X"]), _number(attributes["Y"]))))

    def _end(self, tag: str) -> None:
        self._depth -= 1
        if tag == "Annotation":
            self._points = None

    _points: list[tuple[int, tuple[float, float]]] | None = None


def _number(text: str) -> float:
    """A coordinate; in some locales ASAP writes a decimal comma."""
    value = float(text.replace(",", "."))
    if not np.isfinite(value):
        raise ValueError("a coordinate is no finite number")
    return value


def _spline(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """A closed Catmull-Rom curve through the points (Catmull & Rom 1974), float64 (8 n, 2)."""
    before, after, second = (np.roll(points, shift, axis=0) for shift in (1, -1, -2))
    t = np.arange(_SPLINE_STEPS)[:, None, None] / _SPLINE_STEPS
    curve = 0.5 * (
        2 * points
        + (after - before) * t
        + (2 * before - 5 * points + 4 * after - second) * t**2
        + (3 * points - before - 3 * after + second) * t**3
    )
    return np.ascontiguousarray(curve.transpose(1, 0, 2)).reshape(-1, 2)
