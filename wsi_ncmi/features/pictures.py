"""What a person looks at to judge a slide's tissue: its outline as GeoJSON, and drawn on a thumbnail."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.features.paths import thumbnail_path, tissue_path
from wsi_ncmi.features.storage import storing
from wsi_ncmi.files import atomic_path
from wsi_ncmi.tissue import mask_polygons, write_geojson

if TYPE_CHECKING:
    from pathlib import Path

    import shapely

    from wsi_ncmi.features.preparation import PreparedSlide
    from wsi_ncmi.features.task import SlideTask

__all__ = ["write_pictures"]

_OUTLINE = (0, 140, 60)


def write_pictures(task: SlideTask, prepared: PreparedSlide) -> None:
    """Writes ``tissue/<slide_id>.geojson`` and ``thumbnails/<slide_id>.jpg``, atomically.

    Args:
        task: Names slide and output folder; both subfolders exist.
        prepared: The slide in small, and its tissue.

    Raises:
        JobStoppedError: The folder can't be written to.
    """
    polygons = mask_polygons(prepared.mask)
    outline = tissue_path(task.out, task.record.slide_id)
    with storing(outline):
        write_geojson(outline, polygons, "tissue")
    grid = prepared.grid
    path = thumbnail_path(task.out, task.record.slide_id)
    _write_thumbnail(path, prepared.thumbnail, (grid.width_px, grid.height_px), polygons)


def _write_thumbnail(
    path: Path, pixels: NDArray[np.uint8], level0_px: tuple[int, int], polygons: Sequence[shapely.Polygon]
) -> None:
    from PIL import Image, ImageDraw

    # Pillow may make a read-only image of an array that it does not own.
    picture = Image.fromarray(np.ascontiguousarray(pixels)).copy()
    scale = np.array(picture.size) / np.array(level0_px)
    draw = ImageDraw.Draw(picture)
    for polygon in polygons:
        for ring in (polygon.exterior, *polygon.interiors):
            points = (np.asarray(ring.coords)[:, :2] * scale).round().astype(int)
            draw.line([(int(x), int(y)) for x, y in points], fill=_OUTLINE, width=2)
    with storing(path), atomic_path(path) as temporary:
        picture.save(temporary, format="JPEG", quality=85)
