"""The colour of a slide's tissue in three numbers, for telling whether a model has seen such a stain before.

Source: van der Laak, Pahlplatz, Hanselaar, de Wilde, "Hue-saturation-density (HSD) model for stain
recognition in digital images from transmitted light microscopy", Cytometry 39 (2000).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.features.stain.density import LEAST_DENSITY, MOST_DENSITY, density, sample_pixels

__all__ = ["COLOUR_MEASURES", "tissue_colour"]

COLOUR_MEASURES = ("density", "cx", "cy")
"""Overall density (how dark), and the two chromatic coordinates: (−) red to (+) blue-violet, and pink."""

_LEAST_PIXELS = 50


def tissue_colour(pixels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> dict[str, float]:
    """Median density and chromaticity of the tissue.

    With the densities OD_R, OD_G, OD_B and their mean D: ``cx = OD_R / D − 1`` and
    ``cy = (OD_G − OD_B) / (√3 · D)``.

    Args:
        pixels: uint8 (H, W, 3), the slide in small.
        mask: bool (H, W), its tissue.

    Returns:
        A number for each of ``COLOUR_MEASURES``, rounded to 1e-4; empty where fewer than 50 pixels are dense
        enough to have a colour.

    Raises:
        ValueError: The two are no picture and its mask.
    """
    if pixels.shape[:2] != mask.shape:
        raise ValueError(f"pixels {pixels.shape} and mask {mask.shape} are not of one picture")
    chosen = pixels[mask]
    if not len(chosen):
        return {}
    dense = density(sample_pixels(chosen[None]))
    mean = dense.mean(axis=1)
    stained = (mean >= LEAST_DENSITY) & (dense.min(axis=1) <= MOST_DENSITY)
    if int(np.count_nonzero(stained)) < _LEAST_PIXELS:
        return {}
    dense, mean = dense[stained], mean[stained]
    cx = dense[:, 0] / mean - 1.0
    cy = (dense[:, 1] - dense[:, 2]) / (math.sqrt(3.0) * mean)
    values = (np.median(mean), np.median(cx), np.median(cy))
    return {name: round(float(value), 4) for name, value in zip(COLOUR_MEASURES, values, strict=True)}
