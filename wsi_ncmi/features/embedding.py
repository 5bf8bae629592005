"""From an open slide to its embedded tiles, in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.encoders import Encoder
from wsi_ncmi.errors import SlideError
from wsi_ncmi.features.task import SlideTask
from wsi_ncmi.features.writer import SlideFacts
from wsi_ncmi.slides import Slide
from wsi_ncmi.tiling import TileGrid, TileReader, TileSelection, select_tiles
from wsi_ncmi.tissue import TissueMask

__all__ = ["Embedded", "embed_slide"]


@dataclass(frozen=True)
class Embedded:
    """Features of a slide and what the ledger should say of them.

    Attributes:
        features: float32 (N, D), one row a readable tile.
        coords: int64 (N, 2), level-0 corners.
        tissue_fraction: float16 (N,).
        slide: What the file tells about the slide.
        remark: For the ledger; empty when there is nothing to say.
    """

    features: NDArray[np.float32]
    coords: NDArray[np.int64]
    tissue_fraction: NDArray[np.float16]
    slide: SlideFacts
    remark: str


def embed_slide(
    task: SlideTask, slide: Slide, mask: TissueMask, encoder: Encoder, *, batch_size: int
) -> Embedded:
    """Tiles, reads and encodes a slide.

    Args:
        task: What to do.
        slide: The open slide.
        mask: Its tissue.
        encoder: The encoder.
        batch_size: Tiles handed to the encoder at a time.

    Returns:
        Its features; tiles that can't be read have no row and are counted. Without tissue there are 0 rows.

    Raises:
        SlideError: The slide is too coarse for the grid, or every single tile failed to be read.
    """
    grid = TileGrid.plan(slide.levels, task.mpp, task.grid)
    selection = select_tiles(grid, mask, task.grid.min_tissue)
    features = np.empty((len(selection), encoder.width), np.float32)
    kept = np.zeros(len(selection), np.bool_)
    with TileReader(slide, grid, selection) as reader:
        for batch in reader.batches(batch_size):
            sound = ~batch.failed
            rows = batch.rows[sound]
            if len(rows):
                features[rows] = encoder.encode(batch.pixels if sound.all() else batch.pixels[sound])
                kept[rows] = True
    failed = int((~kept).sum())
    if failed and not kept.any():
        raise SlideError(
            f"None of the {failed} tissue tiles of {task.record.path} can be read; copy the slide again."
        )
    facts = SlideFacts(
        slide_id=task.record.slide_id,
        width_px=slide.width_px,
        height_px=slide.height_px,
        reader=slide.reader,
        mpp_source=task.mpp.source,
        read_level=grid.read_level,
        tile_size_level0=grid.tile_size_level0,
        n_failed_reads=failed,
        encoder_weights_source=encoder.weights_source,
        tissue_found=mask.parameters,
    )
    return Embedded(
        features=features if not failed else features[kept],
        coords=selection.coords[kept],
        tissue_fraction=selection.tissue_fraction[kept],
        slide=facts,
        remark=_remark(task, [slide.note, mask.note, reader.note], grid, mask, selection, failed),
    )


def _remark(
    task: SlideTask,
    notes: list[str],
    grid: TileGrid,
    mask: TissueMask,
    selection: TileSelection,
    failed: int,
) -> str:
    remarks = list(notes)
    if not mask.mask.any():
        remarks.append("no tissue found")
    elif not len(grid):
        remarks.append("no tissue found in a whole tile: the slide is smaller than one tile")
    elif not len(selection):
        remarks.append(f"no tissue found in {task.grid.min_tissue:.0%} of any tile")
    if failed:
        remarks.append(f"{failed} of {len(selection)} tiles can't be read and have no row")
    return "; ".join(remark.rstrip(".") for remark in remarks if remark)
