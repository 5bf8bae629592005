"""What tissue is told from glass by: optical density with the colour of H&E, or saturation.

Both are taken relative to the slide's own glass, so that a tinted or dim scan is not tissue as a whole.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wsi_ncmi.slides import Overview
from wsi_ncmi.tissue.options import TissueOptions

__all__ = ["HIGHEST_DENSITY", "HIGHEST_SATURATION", "LOWEST_SATURATION", "tissue_signal"]

# Otsu's threshold may split pale from dark tissue; above these values it's no border of glass any more.
HIGHEST_DENSITY = 0.15
HIGHEST_SATURATION = 0.15
# Camera noise and JPEG give empty glass a saturation of up to about 0.03.
LOWEST_SATURATION = 0.04

# No scanner's glass is darker; a slide without any glass gets this as its white at least.
_DARKEST_GLASS = 200
_GLASS_PERCENTILE = 98.0
# Below this brightness (0 to 255) colour is the ratio of two noises, and no stain is that black.
_DARKEST_TISSUE = 40.0


def tissue_signal(
    overview: Overview, options: TissueOptions, pixel_um: tuple[float, float]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The picture that is thresholded.

    Args:
        overview: The slide in small; unreadable places get signal 0.
        options: Method and smoothing.
        pixel_um: Width and height of a pixel of the overview in µm.

    Returns:
        The signal, float32 (h, w), and where its colour may be that of tissue, bool (h, w).
    """
    sigma = options.smooth_um / pixel_um[1], options.smooth_um / pixel_um[0]
    white = _glass_colour(overview)
    if options.method == "hed":
        red, green, blue = (_smooth(_density(overview, c, white[c]), sigma) for c in range(3))
        # Haematoxylin and eosin absorb green most. Blue ink absorbs red more, green ink absorbs green
        # least, black ink absorbs all alike. In what is nearly black, the ratios are those of noise.
        lit = overview.pixels.max(axis=2) >= _DARKEST_TISSUE
        return green, lit & (green >= 0.9 * red) & (blue <= 0.92 * green)
    top, saturation = _saturation(overview, white)
    return _smooth(saturation, sigma), top >= _DARKEST_TISSUE


def _glass_colour(overview: Overview) -> NDArray[np.float32]:
    # The glass is the brightest thing on a slide; on one without glass, something near white is assumed.
    white = np.full(3, 255.0, np.float32)
    for channel in range(3):
        counts = np.bincount(overview.pixels[..., channel][overview.readable], minlength=256).cumsum()
        if counts[-1]:
            white[channel] = np.searchsorted(counts, counts[-1] * _GLASS_PERCENTILE / 100.0)
    return np.maximum(white, _DARKEST_GLASS)


# One channel at a time through a table of 256 values: a large slide's overview has tens of megapixels.


def _density(overview: Overview, channel: int, white: float) -> NDArray[np.float32]:
    table = np.maximum(-np.log10((np.arange(256) + 1.0) / (white + 1.0)), 0.0).astype(np.float32)
    density: NDArray[np.float32] = table[overview.pixels[..., channel]]
    density[~overview.readable] = 0.0
    return density


def _saturation(
    overview: Overview, white: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    shape = overview.pixels.shape[:2]
    top, bottom = np.zeros(shape, np.float32), np.full(shape, 255.0, np.float32)
    for channel in range(3):
        table = np.minimum(np.arange(256) * (255.0 / white[channel]), 255.0).astype(np.float32)
        plane = table[overview.pixels[..., channel]]
        np.maximum(top, plane, out=top)
        np.minimum(bottom, plane, out=bottom)
    saturation: NDArray[np.float32] = ((top - bottom) / np.maximum(top, 1.0)).astype(np.float32)
    saturation[~overview.readable | (top < _DARKEST_TISSUE)] = 0.0
    return top, saturation


def _smooth(plane: NDArray[np.float32], sigma: tuple[float, float]) -> NDArray[np.float32]:
    if max(sigma) == 0.0:
        return plane
    smooth: NDArray[np.float32] = ndimage.gaussian_filter(plane, sigma)
    return smooth
