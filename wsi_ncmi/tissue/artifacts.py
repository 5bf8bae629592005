"""Pen ink, folds and borders on a slide in small; folds with a second look at places of the slide."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from wsi_ncmi.slides import LevelReader, OpenLevel, Overview, Slide
from wsi_ncmi.tissue.artifact_map import ArtifactMap
from wsi_ncmi.tissue.borders import find_borders
from wsi_ncmi.tissue.closer import CloserLook
from wsi_ncmi.tissue.colours import Colours
from wsi_ncmi.tissue.fold_window import FINE_UM
from wsi_ncmi.tissue.folds import SHARE_STEPS, find_folds
from wsi_ncmi.tissue.ink import find_ink
from wsi_ncmi.tissue.mask import TissueMask

__all__ = ["find_artifacts"]

_RIM_PX = 3


def find_artifacts(
    slide: Slide,
    overview: Overview,
    colours: Colours,
    mask: TissueMask,
    pixel_um: tuple[float, float],
    open_level: OpenLevel = LevelReader,
) -> ArtifactMap:
    """Finds pen ink, folds and borders.

    Args:
        slide: The open slide; parts of it are read once more.
        overview: The slide in small.
        colours: Its smoothed densities.
        mask: Its tissue.
        pixel_um: Width and height of a pixel of the overview in µm.
        open_level: How parts of the slide are read once more.
    """
    pixel_um2 = pixel_um[0] * pixel_um[1]
    # Planes of a large slide have 22 MB each: none is kept longer than it is needed.
    border, rim = find_borders(colours, pixel_um2)
    eligible = overview.readable & ~rim
    bits = border.view(np.uint8) << np.uint8(2)
    del border, rim
    pen = find_ink(colours, eligible, pixel_um2)
    bits |= pen.view(np.uint8)
    eligible &= mask.mask
    # The rim of a mark is a little darker than the tissue, and as long and narrow as a fold.
    eligible &= ~(ndimage.binary_dilation(pen, iterations=_RIM_PX) if pen.any() else pen)
    del pen
    with CloserLook(slide, overview, pixel_um, FINE_UM, open_level) as closer:
        folds = find_folds(colours, eligible, pixel_um, closer)
    bits |= (folds >= SHARE_STEPS // 2).view(np.uint8) << np.uint8(1)
    return ArtifactMap(bits, overview.downsample_x, overview.downsample_y, folds, SHARE_STEPS)
