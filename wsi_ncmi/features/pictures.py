"""What a person looks at to judge a slide's tissue: its outline as GeoJSON, and drawn on a thumbnail."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from wsi_ncmi.features.paths import thumbnail_path, tissue_path
from wsi_ncmi.features.storage import storing
from wsi_ncmi.files import atomic_path
from wsi_ncmi.slides import Slide, thumbnail
from wsi_ncmi.tissue import TissueMask, mask_polygons, write_geojson

if TYPE_CHECKING:
    from pathlib import Path

    import shapely

__all__ = ["write_pictures"]

_OUTLINE = (0, 140, 60)
_MAX_PX = 1024


def write_pictures(out: Path, slide_id: str, slide: Slide, mask: TissueMask) -> None:
    """Writes ``tissue/<slide_id>.geojson`` and ``thumbnails/<slide_id>.jpg``, atomically.

    Args:
        out: Output folder; both subfolders exist.
        slide_id: Id of the slide.
        slide: The open slide.
        mask: Its tissue.

    Raises:
        JobStoppedError: The folder can't be written to.
        SlideReadError: Nothing of the slide can be read.
    """
    polygons = mask_polygons(mask)
    outline = tissue_path(out, slide_id)
    with storing(outline):
        write_geojson(outline, polygons, "tissue")
    _write_thumbnail(thumbnail_path(out, slide_id), slide, polygons)


def _write_thumbnail(path: Path, slide: Slide, polygons: Sequence[shapely.Polygon]) -> None:
    from PIL import Image, ImageDraw

    pixels = thumbnail(slide, _MAX_PX)
    # Pillow may make a read-only image of an array that it does not own.
    picture = Image.fromarray(np.ascontiguousarray(pixels)).copy()
    scale = np.array([picture.width / slide.width_px, picture.height / slide.height_px])
    draw = ImageDraw.Draw(picture)
    for polygon in polygons:
        for ring in (polygon.exterior, *polygon.interiors):
            points = (np.asarray(ring.coords)[:, :2] * scale).round().astype(int)
            draw.line([(int(x), int(y)) for x, y in points], fill=_OUTLINE, width=2)
    with storing(path), atomic_path(path) as temporary:
        picture.save(temporary, format="JPEG", quality=85)
