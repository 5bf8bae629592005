"""Optical density, and the pixels of an image that show tissue.

``OD = −ln((I + 1) / 240)`` per channel: 240 for empty glass and one added so that black has a density, as in
the reference implementations of Macenko's method.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.features.stain.model import StainFitError

__all__ = [
    "LEAST_DENSITY",
    "LOG_TABLE",
    "MOST_PIXELS",
    "WHITE",
    "density",
    "is_tissue",
    "sample_pixels",
    "tissue_densities",
]

WHITE = 240.0
"""Intensity of empty glass."""

LEAST_DENSITY = 0.15
"""β of Macenko et al. 2009: below it a channel says nothing about the stain."""

MOST_PIXELS = 1 << 20
"""Pixels that statistics are taken of; more change the third decimal."""

_LEAST_PIXELS = 500

LOG_TABLE: NDArray[np.float32] = np.log(np.arange(256) + 1.0).astype(np.float32)
"""ln(I + 1) of every grey level, rounded once from double precision."""


def sample_pixels(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """At most ``MOST_PIXELS`` pixels, evenly spread, the same ones every time.

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
    step = -(-len(flat) // MOST_PIXELS)
    # An odd step walks through all columns of a tile whose width is a power of two.
    return flat[:: step | 1] if step > 1 else flat


def density(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Optical density of pixels (P, 3), float64 (P, 3)."""
    dense: NDArray[np.float64] = np.log(WHITE) - np.log(pixels + 1.0)
    return dense


def is_tissue(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which pixels (P, 3) show tissue: those whose mean density is at least ``LEAST_DENSITY``; bool (P,).

    Raises:
        StainFitError: Fewer than 500 do.
    """
    tissue: NDArray[np.bool_] = density(pixels).mean(axis=1) >= LEAST_DENSITY
    return _enough(tissue)


def tissue_densities(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Densities of stained and of tissue pixels.

    Args:
        pixels: uint8 (P, 3).

    Returns:
        Pixels whose density is at least ``LEAST_DENSITY`` in every channel, float64 (S, 3); all tissue
        pixels, see ``is_tissue``, float64 (T, 3).

    Raises:
        StainFitError: Either are fewer than 500.
    """
    dense = density(pixels)
    stained = dense.min(axis=1) >= LEAST_DENSITY
    return dense[_enough(stained)], dense[is_tissue(pixels)]


def _enough(wanted: NDArray[np.bool_]) -> NDArray[np.bool_]:
    if (found := int(np.count_nonzero(wanted))) < _LEAST_PIXELS:
        raise StainFitError(
            f"The stain can't be measured: only {found} pixels show stained tissue where {_LEAST_PIXELS} are "
            "needed; extract without stain normalisation."
        )
    return wanted
