"""From an open slide to its embedded tiles, in memory."""

from __future__ import annotations

import numpy as np

from wsi_ncmi.encoders import Encoder
from wsi_ncmi.features.preparation import Embedded, PreparedSlide
from wsi_ncmi.slides import Slide
from wsi_ncmi.tiling import TileReader

__all__ = ["embed_slide"]


def embed_slide(prepared: PreparedSlide, slide: Slide, encoder: Encoder, *, batch_size: int) -> Embedded:
    """Reads and encodes the tiles of a slide.

    Args:
        prepared: The slide's tissue and tiles.
        slide: The open slide.
        encoder: The encoder.
        batch_size: Tiles handed to the encoder at a time.

    Returns:
        Its features; tiles that can't be read have no row and are counted. Without tissue there are 0 rows.

    Raises:
        SlideError: Every single tile failed to be read.
    """
    selection = prepared.selection
    features = np.empty((len(selection), encoder.width), np.float32)
    kept = np.zeros(len(selection), np.bool_)
    failed = 0
    with TileReader(slide, prepared.grid, selection) as reader:
        for batch in reader.batches(batch_size):
            sound = ~batch.failed
            failed += int(batch.failed.sum())
            rows, pixels = batch.rows, batch.pixels
            if not sound.all():
                rows, pixels = rows[sound], pixels[sound]
            if not len(rows):
                continue
            good = prepared.screen(rows, pixels)
            if not good.all():
                rows, pixels = rows[good], pixels[good]
            features[rows] = encoder.encode(prepared.normalise(pixels))
            kept[rows] = True
    return prepared.assemble(features, kept, failed, encoder, reader.note, slide)
