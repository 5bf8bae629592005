"""Publication of a slide: its feature file, tissue outline and thumbnail, and its row in the ledger."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.files import atomic_path
from wsi_ncmi.encoders import EncoderInfo
from wsi_ncmi.extraction.ledger import LedgerRow
from wsi_ncmi.extraction.slide import PreparedSlide, SlideEmbedding
from wsi_ncmi.features.storage import translate_os_errors
from wsi_ncmi.features.thumbnails import (
    DROPPED,
    EMPTY,
    KEPT,
    UNREADABLE,
    ThumbnailContent,
    draw_thumbnail,
    thumbnail_comment,
)
from wsi_ncmi.features.writer import write_features
from wsi_ncmi.tissue import ARTIFACT_KINDS, mask_polygons, write_geojson

_BLUR = ARTIFACT_KINDS.index("blur")


def publish_slide(prepared: PreparedSlide, embedding: SlideEmbedding, encoder: EncoderInfo) -> None:
    """Writes all files of a slide; the slide itself need not be open any more.

    The features come last: where they are, everything of the slide is.

    Args:
        prepared: The slide.
        embedding: Its embeddings, see ``PreparedSlide.assemble``.
        encoder: The encoder.

    Raises:
        SlideError: A feature is not finite or does not fit float16.
        JobStoppedError: The output can't be written to.
    """
    task = prepared.task
    _write_images(prepared, embedding.kept)
    write_features(
        task.feature_path(encoder.name),
        features=embedding.features,
        coords=embedding.coords,
        tissue_fraction=embedding.tissue_fraction,
        identity=task.identity(encoder),
        slide=embedding.slide,
        artifacts=embedding.artifacts,
        artifact_kinds=ARTIFACT_KINDS,
    )


def done_row(row: LedgerRow, embedding: SlideEmbedding) -> LedgerRow:
    """The row of a slide whose files are there now, made of the row it would have had failing."""
    return replace(
        row,
        status="done",
        reason=embedding.remark,
        tiles=len(embedding.features),
        failed_reads=embedding.slide.n_failed_reads,
        artifact_tiles=embedding.slide.n_artifact_tiles,
        reader=embedding.slide.reader,
        **embedding.artifacts_found,
    )


def _write_images(prepared: PreparedSlide, kept: NDArray[np.bool_]) -> None:
    """Writes ``tissue/<slide_id>.geojson`` (of the main set) and ``thumbnails/<slide_id>.jpg``, atomically.

    Args:
        prepared: The slide, all of whose tiles are read.
        kept: bool (N,), the tiles of its selection that are embedded.

    Raises:
        JobStoppedError: The folder can't be written to.
    """
    task, grid = prepared.task, prepared.grid
    polygons = mask_polygons(prepared.mask)
    outline = task.tissue_path
    if outline is not None:
        with translate_os_errors(outline):
            write_geojson(outline, polygons, "tissue", prepared.origin)
    states, blurred = _cells(prepared, kept)
    artifacts = {kind: prepared.artifact_map.where(kind) for kind in prepared.artifact_map.kinds}
    picture = draw_thumbnail(
        ThumbnailContent(
            pixels=prepared.thumbnail,
            level0_px=(grid.width_px, grid.height_px),
            tissue=polygons,
            artifacts={kind: mask for kind, mask in artifacts.items() if mask.any()},
            step_level0=grid.step_level0,
            states=states,
            blurred=blurred,
        )
    )
    path = task.thumbnail_path
    with translate_os_errors(path), atomic_path(path) as temporary:
        comment = thumbnail_comment(prepared.thumbnail)
        picture.save(temporary, format="JPEG", quality=85, comment=comment)


def _cells(prepared: PreparedSlide, kept: NDArray[np.bool_]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """State of every tile of the grid, and those out of focus: two arrays (rows, columns)."""
    grid, artifact_filter = prepared.grid, prepared.artifact_filter
    states = np.full(grid.n_rows * grid.n_columns, EMPTY, np.uint8)
    blurred = np.zeros(len(states), np.bool_)
    indices = prepared.selection.indices
    states[indices] = np.where(kept, KEPT, np.where(artifact_filter.scored, DROPPED, UNREADABLE))
    states[artifact_filter.left_out] = DROPPED
    blurred[indices] = artifact_filter.scores[:, _BLUR] >= np.float16(artifact_filter.config.blur)
    shape = (grid.n_rows, grid.n_columns)
    return states.reshape(shape), blurred.reshape(shape)
