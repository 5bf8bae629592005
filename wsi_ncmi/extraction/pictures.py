"""What a person looks at to judge a slide: the outline of its tissue as GeoJSON, and its picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.files import atomic_path
from wsi_ncmi.extraction.drawing import DROPPED, EMPTY, KEPT, UNREADABLE, QualityPicture, draw_picture
from wsi_ncmi.features.storage import storing
from wsi_ncmi.features.thumbnails import thumbnail_comment
from wsi_ncmi.tissue import ARTIFACT_KINDS, mask_polygons, write_geojson

if TYPE_CHECKING:
    from wsi_ncmi.extraction.preparation import PreparedSlide

__all__ = ["write_pictures"]

_BLUR = ARTIFACT_KINDS.index("blur")


def write_pictures(prepared: PreparedSlide, kept: NDArray[np.bool_]) -> None:
    """Writes ``tissue/<slide_id>.geojson`` (of the main set) and ``thumbnails/<slide_id>.jpg``, atomically.

    Args:
        prepared: The slide in small, its tissue and its tiles, all of which were looked at.
        kept: bool (N,), the tiles of its selection that are embedded.

    Raises:
        JobStoppedError: The folder can't be written to.
    """
    task, grid = prepared.task, prepared.grid
    polygons = mask_polygons(prepared.mask)
    outline = task.tissue_path
    if outline is not None:
        with storing(outline):
            write_geojson(outline, polygons, "tissue")
    states, blurred = _cells(prepared, kept)
    artifacts = {kind: prepared.artifact_map.where(kind) for kind in prepared.artifact_map.kinds}
    picture = draw_picture(
        QualityPicture(
            pixels=prepared.picture,
            level0_px=(grid.width_px, grid.height_px),
            tissue=polygons,
            artifacts={kind: mask for kind, mask in artifacts.items() if mask.any()},
            step_level0=grid.step_level0,
            states=states,
            blurred=blurred,
        )
    )
    path = task.thumbnail_path
    with storing(path), atomic_path(path) as temporary:
        comment = thumbnail_comment(prepared.picture)
        picture.save(temporary, format="JPEG", quality=85, comment=comment)


def _cells(prepared: PreparedSlide, kept: NDArray[np.bool_]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """What became of every tile of the grid, and which are out of focus: two arrays (rows, columns)."""
    grid, screening = prepared.grid, prepared.screening
    states = np.full(grid.n_rows * grid.n_columns, EMPTY, np.uint8)
    blurred = np.zeros(len(states), np.bool_)
    indices = prepared.selection.indices
    states[indices] = np.where(kept, KEPT, np.where(screening.seen, DROPPED, UNREADABLE))
    states[screening.left_out] = DROPPED
    blurred[indices] = screening.scores[:, _BLUR] >= np.float16(screening.options.blur)
    shape = (grid.n_rows, grid.n_columns)
    return states.reshape(shape), blurred.reshape(shape)
