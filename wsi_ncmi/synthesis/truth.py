"""Ground truth of a slide as GeoJSON in level-0 pixels, in the form QuPath exports and imports."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shapely import Polygon, to_geojson

from wsi_ncmi.core.files import parse_json, write_text
from wsi_ncmi.synthesis.anatomy import Anatomy
from wsi_ncmi.synthesis.artefacts import Artefact

_COLOURS = {
    "tissue": (120, 120, 120),
    "tumor": (200, 0, 0),
    "pen": (0, 60, 200),
    "fold": (150, 80, 0),
    "blur": (0, 150, 150),
    "border": (60, 60, 60),
}


@dataclass(frozen=True)
class SlideTruth:
    """Ground truth of a slide, known because it was drawn.

    Attributes:
        slide_id: Name without extension.
        label: Class of the slide.
        anatomy: Outlines in level-0 px, areas in mm².
        artefacts: Pen marks, folds, blur, borders.
    """

    slide_id: str
    label: str
    anatomy: Anatomy
    artefacts: tuple[Artefact, ...] = ()


def write_truth(path: Path, truth: SlideTruth) -> None:
    """Writes a FeatureCollection with one feature a polygon.

    A class is ``tissue``, ``tumor``, ``pen``, ``fold``, ``blur`` or ``border``. ``tissue`` outlines
    include fat cells (holes of at most 60 µm, 2.5 % of the area). The member ``slide`` beside ``features``
    carries label, scale and areas.
    """
    anatomy = truth.anatomy
    features = [_feature(p, "tissue") for p in anatomy.tissue]
    features += [_feature(p, "tumor") for p in anatomy.tumour]
    features += [_feature(p, artefact.kind) for artefact in truth.artefacts for p in artefact.polygons]
    slide = {
        "slide_id": truth.slide_id,
        "label": truth.label,
        "mpp": anatomy.frame.mpp,
        "width_px": anatomy.frame.width_px,
        "height_px": anatomy.frame.height_px,
        "tissue_mm2": round(anatomy.tissue_mm2, 6),
        "tumour_mm2": round(anatomy.tumour_mm2, 6),
    }
    value = {"type": "FeatureCollection", "slide": slide, "features": features}
    write_text(path, json.dumps(value, separators=(",", ":"), allow_nan=False) + "\n")


def _feature(polygon: Polygon, name: str) -> dict[str, Any]:
    return {
        "type": "Feature",
        "geometry": parse_json(to_geojson(polygon)),
        "properties": {
            "objectType": "annotation",
            "classification": {"name": name, "color": list(_COLOURS[name])},
        },
    }
