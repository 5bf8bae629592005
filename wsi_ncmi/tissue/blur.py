"""Out-of-focus score of a tile, from its own pixels.

The measure is a ratio, so that it depends neither on stain nor on how much there is to see: second
differences of the green channel at a lag of about 1 µm against those at about 4 µm. Edges in focus have a
good share of their energy at the fine lag; a Gaussian blur of sigma s takes it away below a lag of s, where
second differences fall with the fourth power of the lag. Noise alone (sharp mucus, empty glass) has as much
at either lag and so never looks blurred.
"""

import numpy as np
from numpy.typing import NDArray

_FINE_UM, _COARSE_UM = 1.0, 4.0
# Blocks with less coarse energy (squared grey levels) have no detail that could be in focus or not.
_MIN_ENERGY = 40.0
# Ratio of energies: at the first and below a block is out of focus, at the second and above it is sharp.
_BLURRED, _SHARP = 0.037, 0.065
_BLOCKS = 4
_ROW_STEP = 8
# Tiles at a time: their planes then stay in the processor's cache.
_TILES = 4


def tile_blur(pixels: NDArray[np.uint8], mpp: float) -> NDArray[np.float32]:
    """Share of each tile's detail that is out of focus.

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
    blocks = min(_BLOCKS, min(height, width) // (2 * coarse + _ROW_STEP))
    if blocks:
        # Above 0.5 µm per pixel a pixel is as wide as the fine lag, and its own averaging costs detail.
        aperture = min(1.0, max(0.6, 1.3 - 0.6 * mpp))
        # An edge along the rows must not fall between those that are looked at.
        row_step = min(_ROW_STEP, 2 * fine)
        for start in range(0, n, _TILES):
            part = slice(start, start + _TILES)
            green = _blocks(pixels[part, ..., 1], blocks)
            energies = _energy(green, fine, row_step), _energy(green, coarse, row_step)
            scores[part] = _scores(*energies, aperture)
    return scores


def _scores(fine: NDArray[np.float32], coarse: NDArray[np.float32], aperture: float) -> NDArray[np.float32]:
    """Scores from the energies of each tile's blocks, float32 (n, blocks, blocks) each."""
    ratio = fine / np.maximum(coarse, 1e-6) / aperture
    weight = np.clip(coarse / _MIN_ENERGY - 1.0, 0.0, 1.0)
    soft = np.clip((_SHARP - ratio) / (_SHARP - _BLURRED), 0.0, 1.0)
    total = weight.sum(axis=(1, 2))
    score: NDArray[np.float32] = (soft * weight).sum(axis=(1, 2)) / np.maximum(total, 1.0)
    return score.astype(np.float32)


def _blocks(green: NDArray[np.uint8], blocks: int) -> NDArray[np.int16]:
    """Parts (n, h, w) in blocks: int16 (n, blocks, h, blocks, w); what is left over is cut."""
    n, height, width = green.shape
    high, wide = height // blocks, width // blocks
    cut = green[:, : high * blocks, : wide * blocks].astype(np.int16)
    return cut.reshape(n, blocks, high, blocks, wide)


def _energy(green: NDArray[np.int16], lag: int, row_step: int) -> NDArray[np.float32]:
    """Mean square of the second differences that lie within a block, float32 (n, blocks, blocks).

    Differences that reach beyond a block would see an edge beside it at the coarse lag only.
    """
    high = green.shape[2]
    lines = green[:, :, ::_ROW_STEP]
    across = lines[..., : -2 * lag] - 2 * lines[..., lag:-lag]
    across += lines[..., 2 * lag :]
    rows = np.arange(lag, high - lag, row_step)
    down = green[:, :, rows - lag] - 2 * green[:, :, rows]
    down += green[:, :, rows + lag]
    return _mean_square(across) + _mean_square(down)


def _mean_square(difference: NDArray[np.int16]) -> NDArray[np.float32]:
    values = difference.astype(np.float32)
    energy: NDArray[np.float32] = np.einsum("nahbw,nahbw->nab", values, values)
    return energy / np.float32(difference.shape[2] * difference.shape[4])
