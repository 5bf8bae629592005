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
    "MOST_DENSITY",
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

MOST_DENSITY = 3.0
"""A pixel denser than this in every channel (below 11 of 255) is ink or a scanner's black border."""

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
    """Which pixels (P, 3) show tissue: of mean density ``LEAST_DENSITY`` at least, and not black; bool (P,).

    Raises:
        StainFitError: Fewer than 500 do.
    """
    return _enough(_tissue(density(pixels)))


def tissue_densities(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Densities of stained and of tissue pixels.

    Args:
        pixels: uint8 (P, 3).

    Returns:
        Tissue pixels whose density is at least ``LEAST_DENSITY`` in every channel, float64 (S, 3); all
        tissue pixels, see ``is_tissue``, float64 (T, 3).

    Raises:
        StainFitError: Fewer than 500 pixels are dense enough.
    """
    dense = density(pixels)
    tissue = _tissue(dense)
    stained = tissue & (dense.min(axis=1) >= LEAST_DENSITY)
    return dense[_enough(stained)], dense[tissue]


def _tissue(dense: NDArray[np.float64]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (dense.mean(axis=1) >= LEAST_DENSITY) & (dense.min(axis=1) <= MOST_DENSITY)
    return found


def _enough(wanted: NDArray[np.bool_]) -> NDArray[np.bool_]:
    if (found := int(np.count_nonzero(wanted))) < _LEAST_PIXELS:
        raise StainFitError(
            f"The stain can't be measured: only {found} pixels show stained tissue where {_LEAST_PIXELS} are "
            "needed; extract without stain normalisation."
        )
    return wanted
