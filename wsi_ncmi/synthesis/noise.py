"""Smooth random fields: periodic ones for textures, coarse ones for shapes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["coarse_noise", "periodic_noise", "warp"]


def periodic_noise(
    rng: np.random.Generator, size_px: int, length_x_px: float, length_y_px: float
) -> NDArray[np.float32]:
    """Gaussian noise, low-passed so that its features measure about ``length`` px, without a seam.

    Args:
        rng: Source of randomness.
        size_px: Edge of the square and period, px.
        length_x_px: Gaussian sigma along x, px.
        length_y_px: Gaussian sigma along y, px.

    Returns:
        float32 (size_px, size_px) with mean 0 and standard deviation 1.
    """
    spectrum = np.fft.rfft2(rng.standard_normal((size_px, size_px), dtype=np.float32))
    fx = np.fft.rfftfreq(size_px).astype(np.float32)
    fy = np.fft.fftfreq(size_px).astype(np.float32)[:, None]
    spectrum *= np.exp(-2.0 * np.pi**2 * ((fx * length_x_px) ** 2 + (fy * length_y_px) ** 2))
    field = np.fft.irfft2(spectrum, s=(size_px, size_px)).astype(np.float32)
    field -= field.mean()
    normalised: NDArray[np.float32] = field / max(float(field.std()), 1e-9)
    return normalised


def warp(
    field: NDArray[np.float32], shift_x: NDArray[np.float32], shift_y: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Displaces a periodic field by px shifts (bilinear); stays periodic."""
    from scipy.ndimage import map_coordinates

    rows, columns = np.indices(field.shape, dtype=np.float32)
    warped: NDArray[np.float32] = map_coordinates(
        field, (rows + shift_y, columns + shift_x), order=1, mode="grid-wrap", output=np.float32
    )
    return warped


def coarse_noise(rng: np.random.Generator, height: int, width: int, length: float) -> NDArray[np.float32]:
    """Noise of feature size ``length`` (cells) on a coarse grid, mean about 0, standard deviation about 1.

    It is drawn at ``length / 2`` cells and interpolated, so the cost doesn't grow with the feature size.
    """
    from PIL import Image

    step = max(length / 2.0, 1.0)
    rows, columns = int(np.ceil(height / step)) + 4, int(np.ceil(width / step)) + 4
    small = Image.fromarray(rng.standard_normal((rows, columns), dtype=np.float32))
    box = (1.5, 1.5, 1.5 + width / step, 1.5 + height / step)
    large = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC, box=box), dtype=np.float32)
    return large * np.float32(1.35)
