"""Areas annotated by hand on a slide, in level-0 pixels."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import shapely


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
