"""Proof that directly decoded tiles are the reader's pixels: a wrong pixel is worse than a slow one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import SlideReadError
from wsi_ncmi.slides import Slide
from wsi_ncmi.tiling.stored import StoredTiles

__all__ = ["PROBE_TOLERANCE", "probe_stored_tiles"]

PROBE_TOLERANCE = 2
"""Largest difference in grey levels that passes: rounding of two decoders."""

_PROBES = 5
# OpenSlide interpolates between pixels at level coordinates that are no whole numbers; Cairo counts in 1/256.
_WHOLE_PX = 1 / 512


def probe_stored_tiles(
    slide: Slide, level: int, stored: StoredTiles, used: NDArray[np.int64], most: int = _PROBES
) -> int:
    """Compares some stored tiles with what the slide's reader gives for their places.

    Args:
        slide: The slide, open with its own reader.
        level: Index of the level.
        stored: The level's tiles.
        used: Tiles that will be needed, ascending, none absent; the first, the last and some between are
            taken.
        most: How many.

    Returns:
        The largest difference in grey levels, or -1 when no tile could be compared. A tile that either side
        can't read is passed over: it is damaged, and says nothing about the way of reading.
    """
    view = slide.levels[level]
    down = (view.downsample_x + view.downsample_y) / 2
    row, column = np.divmod(used, stored.n_columns)
    corners = np.stack((column * stored.tile_width_px, row * stored.tile_height_px), axis=1)
    whole = (np.abs(np.rint(corners * down) / down - corners) < _WHOLE_PX).all(axis=1)
    chosen = np.flatnonzero(whole)
    if not len(chosen):
        return -1
    order = chosen[np.unique(np.linspace(0, len(chosen) - 1, most).round().astype(np.int64))]
    worst = -1
    for place in order:
        x, y = (int(value) for value in corners[place])
        width, height = (
            min(stored.tile_width_px, view.width_px - x),
            min(stored.tile_height_px, view.height_px - y),
        )
        if width <= 0 or height <= 0:
            continue
        ours = np.empty((stored.tile_height_px, stored.tile_width_px, 3), np.uint8)
        try:
            stored.decode(int(used[place]), ours)
            theirs = slide.read_region(round(x * down), round(y * down), level, width, height)
        except SlideReadError:
            continue
        except Exception:  # noqa: S112 - decoders raise what they like; the tile's own read will report it
            continue
        difference = np.abs(ours[:height, :width].astype(np.int16) - theirs).max()
        worst = max(worst, int(difference))
    return worst
