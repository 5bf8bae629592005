"""Pen ink, folds and borders on a slide in small."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.slides import Overview
from wsi_ncmi.tissue.artifact_map import ArtifactMap
from wsi_ncmi.tissue.colours import RATIO_STEP, Colours
from wsi_ncmi.tissue.runs import without_small

__all__ = ["find_artifacts"]

_LEAST_INK = 0.25
_LEAST_INK_UM2 = 2_000.0
_LEAST_BORDER_UM2 = 20_000.0
_BORDER_BRIGHTNESS = 24


def find_artifacts(overview: Overview, colours: Colours, pixel_um: tuple[float, float]) -> ArtifactMap:
    """Finds pen ink, folds and borders.

    Args:
        overview: The slide in small.
        colours: Its smoothed densities.
        pixel_um: Width and height of a pixel of the overview in µm.
    """
    pixel_um2 = pixel_um[0] * pixel_um[1]
    border = colours.brightest <= _BORDER_BRIGHTNESS
    without_small(border, _LEAST_BORDER_UM2 / pixel_um2)
    pen = _ink(colours) & ~border
    without_small(pen, _LEAST_INK_UM2 / pixel_um2)
    bits = pen.astype(np.uint8)
    bits |= border.astype(np.uint8) << 2
    bits[~overview.readable] = 0
    return ArtifactMap(bits, overview.downsample_x, overview.downsample_y)


def _ink(colours: Colours) -> NDArray[np.bool_]:
    """Blue and green ink absorb red more than green, black ink absorbs all alike."""
    strange = colours.red_ratio > round(1.15 / RATIO_STEP)
    strange |= colours.blue_ratio > round(0.85 / RATIO_STEP)
    strange &= colours.green > _LEAST_INK
    return strange
