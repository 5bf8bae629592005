"""Data of the viewer page: the slide, its tile values and outlines, as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from wsi_ncmi.reporting.heatmaps.values import COLOUR_TABLE, SCALES, TileValues, scale_ticks, scale_title

if TYPE_CHECKING:
    import shapely

    from wsi_ncmi.slides import Slide

SHAPE_COLOURS = {
    "tissue": "#008c3c",
    "pen": "#ff8c00",
    "fold": "#e0c000",
    "border": "#8c5a28",
    "blur": "#00a5b4",
}
_OTHERS = ("#d0003c", "#4b4bc8", "#a000a0", "#0078c8", "#7a5c00")
_DIGITS = 6


def _colour(number: int, name: str) -> str:
    return SHAPE_COLOURS.get(name, _OTHERS[number % len(_OTHERS)])


@dataclass(frozen=True)
class Shape:
    """Outlines that are shown and hidden together.

    Attributes:
        name: For example ``tissue`` or ``annotations``.
        polygons: In level-0 pixels.
        labels: Name of each polygon, where it has one.
    """

    name: str
    polygons: Sequence[shapely.Polygon]
    labels: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class ViewerData:
    """A slide and its overlays.

    Attributes:
        slide_id: Name of the slide.
        slide: The open slide.
        mpp: µm per level-0 pixel along x and y, None where unknown.
        tiles: Tile values, None without features.
        shapes: Outlines.
        facts: Facts beside the picture: name → value.
        notes: Sentences about missing overlays.
        prediction: What a model says of the slide: name → value; empty without one.
    """

    slide_id: str
    slide: Slide
    mpp: tuple[float, float] | None = None
    tiles: TileValues | None = None
    shapes: tuple[Shape, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    prediction: Mapping[str, str] = field(default_factory=dict)

    def info(self, tile_px: int) -> dict[str, Any]:
        """Size, layers and outlines, for the start of the page, JSON-ready."""
        layers = []
        if self.tiles is not None:
            layers = [
                {
                    "name": layer.name,
                    "scales": {
                        scale: {
                            "title": scale_title(layer, scale),
                            "ticks": [[position, label] for position, label in scale_ticks(layer, scale)],
                        }
                        for scale in SCALES
                    },
                }
                for layer in self.tiles.layers
            ]
        return {
            "slide_id": self.slide_id,
            "width": self.slide.width_px,
            "height": self.slide.height_px,
            "tile_px": tile_px,
            "mpp": self.mpp,
            "layers": layers,
            "colours": COLOUR_TABLE[::5].tolist(),
            "shapes": [
                {
                    "name": shape.name,
                    "colour": _colour(number, shape.name),
                    "count": len(shape.polygons),
                }
                for number, shape in enumerate(self.shapes)
            ],
            "facts": dict(self.facts),
            "notes": list(self.notes),
            "prediction": dict(self.prediction),
        }

    def tile_json(self) -> dict[str, Any]:
        """Coordinates and values of the tiles, JSON-ready."""
        if self.tiles is None:
            return {"coords": [], "size": [0, 0], "layers": []}
        return {
            "coords": self.tiles.coords.ravel().tolist(),
            "size": list(self.tiles.tile_level0),
            "layers": [
                [float(f"{value:.{_DIGITS}g}") for value in layer.values.astype(np.float64).tolist()]
                for layer in self.tiles.layers
            ],
        }

    def shape_json(self) -> list[dict[str, Any]]:
        """Outlines, JSON-ready: rings of level-0 coordinates, rounded to a tenth of a pixel."""
        return [
            {
                "name": shape.name,
                "colour": _colour(number, shape.name),
                "labels": list(shape.labels),
                "polygons": [
                    [
                        np.round(np.asarray(ring.coords)[:, :2], 1).ravel().tolist()
                        for ring in (polygon.exterior, *polygon.interiors)
                    ]
                    for polygon in shape.polygons
                ],
            }
            for number, shape in enumerate(self.shapes)
        ]
