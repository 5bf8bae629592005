"""Optical density of pixels, the pixels that show tissue, and the colour of tissue.

``OD = −ln((I + 1) / 240)`` per channel: 240 for empty glass and one added so that black has a density, as in
the reference implementations of Macenko's method.
"""

import math

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import SlideError

WHITE = 240.0
"""Intensity of empty glass."""

MIN_DENSITY = 0.15
"""β of Macenko et al. 2009: below it a channel says nothing about the stain."""

MAX_DENSITY = 3.0
"""A pixel denser than this in every channel (below 11 of 255) is ink or a scanner's black border."""

MAX_PIXELS = 1 << 20
"""Pixels that statistics are taken of; more change the third decimal."""

_MIN_PIXELS = 500

LOG_TABLE: NDArray[np.float32] = np.log(np.arange(256) + 1.0).astype(np.float32)
"""ln(I + 1) of every grey level, rounded once from double precision."""


class StainFitError(SlideError):
    """The stain of an image can't be measured: too little tissue, one stain only, no contrast."""


def sample_pixels(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """At most ``MAX_PIXELS`` pixels, evenly spread, the same ones every time.

    Args:
        pixels: uint8 (h, w, 3) or (n, h, w, 3).

    Returns:
        uint8 (P, 3).

    Raises:
        ValueError: Another shape or type.
    """
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4) or pixels.shape[-1] != 3:
        raise ValueError(f"pixels must be uint8 (h, w, 3) or (n, h, w, 3), not {pixels.dtype} {pixels.shape}")
    flat = pixels.reshape(-1, 3)
    step = -(-len(flat) // MAX_PIXELS)
    # An odd step walks through all columns of a tile whose width is a power of two.
    return flat[:: step | 1] if step > 1 else flat


_DENSITIES: NDArray[np.float64] = np.log(WHITE) - np.log(np.arange(256) + 1.0)


def density(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Optical density of pixels (P, 3), float64 (P, 3)."""
    return _DENSITIES[pixels]


def is_tissue(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels (P, 3) that show tissue: of mean density ``MIN_DENSITY`` at least, and not black; bool (P,).

    Raises:
        StainFitError: Fewer than 500 do.
    """
    return _enough(_tissue(density(pixels)))


def tissue_densities(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Densities of stained and of tissue pixels.

    Args:
        pixels: uint8 (P, 3).

    Returns:
        Tissue pixels whose density is at least ``MIN_DENSITY`` in every channel, float64 (S, 3); all
        tissue pixels, see ``is_tissue``, float64 (T, 3).

    Raises:
        StainFitError: Fewer than 500 pixels are dense enough.
    """
    dense = density(pixels)
    tissue = _tissue(dense)
    stained = tissue & (dense.min(axis=1) >= MIN_DENSITY)
    return dense[_enough(stained)], dense[tissue]


def _tissue(dense: NDArray[np.float64]) -> NDArray[np.bool_]:
    lowest = np.minimum(np.minimum(dense[:, 0], dense[:, 1]), dense[:, 2])
    found: NDArray[np.bool_] = (_mean(dense) >= MIN_DENSITY) & (lowest <= MAX_DENSITY)
    return found


def _mean(dense: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of the channels: as ``dense.mean(axis=1)`` in a fraction of the time."""
    mean: NDArray[np.float64] = (dense[:, 0] + dense[:, 1] + dense[:, 2]) / 3
    return mean


def _enough(wanted: NDArray[np.bool_]) -> NDArray[np.bool_]:
    if (found := int(np.count_nonzero(wanted))) < _MIN_PIXELS:
        raise StainFitError(
            f"The stain can't be measured: only {found} pixels show stained tissue where {_MIN_PIXELS} are "
            "needed; extract without stain normalisation."
        )
    return wanted


COLOUR_MEASURES = ("density", "cx", "cy")
"""Overall density (how dark), and the two chromatic coordinates: (−) red to (+) blue-violet, and pink."""

_MIN_COLOUR_PIXELS = 50


def tissue_colour(pixels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> dict[str, float]:
    """Median density and chromaticity of the tissue.

    With the densities OD_R, OD_G, OD_B and their mean D: ``cx = OD_R / D − 1`` and
    ``cy = (OD_G − OD_B) / (√3 · D)``. Tells whether a model has seen such a stain before.

    Source: van der Laak, Pahlplatz, Hanselaar, de Wilde, "Hue-saturation-density (HSD) model for stain
    recognition in digital images from transmitted light microscopy", Cytometry 39 (2000).

    Args:
        pixels: uint8 (H, W, 3), the slide's thumbnail.
        mask: bool (H, W), its tissue.

    Returns:
        A number for each of ``COLOUR_MEASURES``, rounded to 1e-4; empty where fewer than 50 pixels are dense
        enough to have a colour.

    Raises:
        ValueError: Image and mask differ in shape.
    """
    if pixels.shape[:2] != mask.shape:
        raise ValueError(f"pixels {pixels.shape} and mask {mask.shape} are not of one picture")
    chosen = pixels[mask]
    if not len(chosen):
        return {}
    dense = density(sample_pixels(chosen[None]))
    stained = _tissue(dense)
    if np.count_nonzero(stained) < _MIN_COLOUR_PIXELS:
        return {}
    dense = dense[stained]
    mean = _mean(dense)
    cx = dense[:, 0] / mean - 1.0
    cy = (dense[:, 1] - dense[:, 2]) / (math.sqrt(3.0) * mean)
    values = (np.median(mean), np.median(cx), np.median(cy))
    return {name: round(float(value), 4) for name, value in zip(COLOUR_MEASURES, values, strict=True)}
