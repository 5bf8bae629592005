"""Whether a tile is out of focus, from its own pixels.

The measure is a ratio, so that it depends neither on stain nor on how much there is to see: second
differences of the green channel at a lag of about 1 µm against those at about 4 µm. Edges in focus have a
good share of their energy at the fine lag; a Gaussian blur of sigma s takes it away below a lag of s, where
second differences fall with the fourth power of the lag. Noise alone (sharp mucus, empty glass) has as much
at either lag and so never looks blurred.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["tile_blur"]

_FINE_UM, _COARSE_UM = 1.0, 4.0
# Blocks with less coarse energy (squared grey levels) have no detail that could be in focus or not.
_LEAST_ENERGY = 40.0
# Ratio of energies: at the first and below a block is out of focus, at the second and above it is sharp.
_BLURRED, _SHARP = 0.037, 0.07
_BLOCKS = 4
_ROW_STEP = 8
# Tiles at a time: their planes then stay in the processor's cache.
_TILES = 4


def tile_blur(pixels: NDArray[np.uint8], mpp: float) -> NDArray[np.float32]:
    """How much of each tile's detail is out of focus.

    Args:
        pixels: uint8 (n, h, w, 3), tiles as they were read.
        mpp: Their resolution, µm per pixel.

    Returns:
        float32 (n,): 0 = sharp (or nothing to see), 1 = all detail is out of focus.
    """
    n, height, width = pixels.shape[:3]
    fine = max(1, round(_FINE_UM / mpp))
    coarse = max(2 * fine, round(_COARSE_UM / mpp))
    scores = np.zeros(n, np.float32)
    if min(height, width) > 2 * coarse + _BLOCKS * _ROW_STEP:
        # Above 0.5 µm per pixel a pixel is as wide as the fine lag, and its own averaging costs detail.
        aperture = min(1.0, max(0.6, 1.3 - 0.6 * mpp))
        for start in range(0, n, _TILES):
            part = slice(start, start + _TILES)
            scores[part] = _scores(pixels[part, ..., 1], (fine, coarse), aperture)
    return scores


def _scores(green: NDArray[np.uint8], lags: tuple[int, int], aperture: float) -> NDArray[np.float32]:
    """Scores of a few tiles' green channels, uint8 (n, h, w), every eighth row of them."""
    height, width = green.shape[1:]
    coarse = lags[1]
    rows = np.arange(coarse, height - coarse, _ROW_STEP)
    columns = slice(coarse, width - coarse)
    middle = green[:, rows].astype(np.int16)
    double = 2 * middle[:, :, columns]
    energies = []
    for lag in lags:
        across = middle[:, :, coarse - lag : width - coarse - lag] - double
        across += middle[:, :, coarse + lag : width - coarse + lag]
        down = green[:, rows - lag, columns] - double
        down += green[:, rows + lag, columns]
        energies.append(_blocks(across) + _blocks(down))
    ratio = energies[0] / np.maximum(energies[1], 1e-6) / aperture
    weight = np.clip(energies[1] / _LEAST_ENERGY - 1.0, 0.0, 1.0)
    soft = np.clip((_SHARP - ratio) / (_SHARP - _BLURRED), 0.0, 1.0)
    total = weight.sum(axis=(1, 2))
    score: NDArray[np.float32] = (soft * weight).sum(axis=(1, 2)) / np.maximum(total, 1.0)
    return score.astype(np.float32)


def _blocks(difference: NDArray[np.int16]) -> NDArray[np.float32]:
    """Mean square in each of 4 × 4 blocks, float32 (n, 4, 4); rows and columns that are left over are cut."""
    n, height, width = difference.shape
    high, wide = height // _BLOCKS, width // _BLOCKS
    cut = difference[:, : high * _BLOCKS, : wide * _BLOCKS].astype(np.float32)
    cut = cut.reshape(n, _BLOCKS, high, _BLOCKS, wide)
    energy: NDArray[np.float32] = np.einsum("nahbw,nahbw->nab", cut, cut) / np.float32(high * wide)
    return energy
