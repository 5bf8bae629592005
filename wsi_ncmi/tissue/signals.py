"""What tissue is told from glass by: optical density with the colour of H&E, or saturation.

Both are taken relative to the slide's own glass, so that a tinted or dim scan is not tissue as a whole.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.slides import Overview
from wsi_ncmi.tissue.colours import RATIO_STEP, Colours, smooth, strips
from wsi_ncmi.tissue.config import TissueConfig

__all__ = ["HIGHEST_DENSITY", "HIGHEST_SATURATION", "LOWEST_SATURATION", "tissue_signal"]

# Otsu's threshold may split pale from dark tissue; above these values it's no border of glass any more.
HIGHEST_DENSITY = 0.15
HIGHEST_SATURATION = 0.15
# Camera noise and JPEG give empty glass a saturation of up to about 0.03.
LOWEST_SATURATION = 0.04

# Below this brightness (0 to 255) colour is the ratio of two noises, and no stain is that black.
_DARKEST_TISSUE = 40
# Haematoxylin and eosin absorb green most. Blue ink absorbs red more, green ink absorbs green least, black
# ink absorbs all alike.
_MOST_RED, _MOST_BLUE = 1.0 / 0.9, 0.92


def tissue_signal(
    overview: Overview,
    colours: Colours,
    white: NDArray[np.float32],
    options: TissueConfig,
    sigma: tuple[float, float],
) -> tuple[NDArray[np.float16], NDArray[np.bool_]]:
    """The picture that is thresholded.

    Args:
        overview: The slide in small; unreadable places get signal 0.
        colours: Its smoothed densities.
        white: Colour of the glass, float32 (3,).
        options: The method.
        sigma: Smoothing in pixels down and across.

    Returns:
        The signal, float16 (h, w), and where its colour may be that of tissue, bool (h, w).
    """
    eligible = colours.brightest >= _DARKEST_TISSUE
    if options.method == "hed":
        eligible &= colours.red_ratio <= round(_MOST_RED / RATIO_STEP)
        eligible &= colours.blue_ratio <= round(_MOST_BLUE / RATIO_STEP)
        return colours.green, eligible
    height, width = overview.readable.shape
    signal = np.empty((height, width), np.float16)
    for rows, padded, inner in strips((height, width), int(4.0 * sigma[0] + 0.5)):
        pixels, readable = overview.pixels[padded], overview.readable[padded]
        signal[rows] = smooth(_saturation(pixels, readable, white), sigma)[inner]
    return signal, eligible


def _saturation(
    pixels: NDArray[np.uint8], readable: NDArray[np.bool_], white: NDArray[np.float32]
) -> NDArray[np.float32]:
    top, bottom = np.zeros(readable.shape, np.float32), np.full(readable.shape, 255.0, np.float32)
    for channel in range(3):
        table = np.minimum(np.arange(256) * (255.0 / white[channel]), 255.0).astype(np.float32)
        plane = table[pixels[..., channel]]
        np.maximum(top, plane, out=top)
        np.minimum(bottom, plane, out=bottom)
    saturation: NDArray[np.float32] = ((top - bottom) / np.maximum(top, 1.0)).astype(np.float32)
    saturation[~readable | (top < _DARKEST_TISSUE)] = 0.0
    return saturation
