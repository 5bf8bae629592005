"""Texture of a density plane at several scales: gradients, local binary patterns, block DCT energies."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "dct_energies",
    "dct_energies_names",
    "gradient_energies",
    "gradient_energies_names",
    "halve",
    "pattern_histogram",
    "pattern_histogram_names",
]

_BLOCK = 8
_PATTERNS = 10  # rotation-invariant uniform patterns of 8 neighbours: 0 … 8 ones, and all others
_NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))  # once around


def halve(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean of 2 × 2 pixels; an odd last row or column is dropped.

    Args:
        plane: float32 (h, w), both at least 2.

    Returns:
        float32 (h // 2, w // 2).
    """
    height, width = plane.shape[0] // 2 * 2, plane.shape[1] // 2 * 2
    rows = plane[0:height:2, :width] + plane[1:height:2, :width]
    return (rows[:, 0::2] + rows[:, 1::2]) * np.float32(0.25)


def gradient_energies(plane: NDArray[np.float32]) -> NDArray[np.float64]:
    """Log gradient energy, mean gradient, peakedness, anisotropy and log Laplacian energy of a plane.

    Args:
        plane: float32 (h, w), both at least 4.

    Returns:
        float64 (5,), finite for any finite plane.
    """
    across = plane[1:-1, 2:] - plane[1:-1, :-2]
    down = plane[2:, 1:-1] - plane[:-2, 1:-1]
    xx, yy, xy = across * across, down * down, across * down
    squared = xx + yy
    energy = float(squared.mean(dtype=np.float64))
    fourth = float((squared * squared).mean(dtype=np.float64))
    magnitude = float(np.sqrt(squared).mean(dtype=np.float64))
    mean_xx, mean_yy, mean_xy = (float(a.mean(dtype=np.float64)) for a in (xx, yy, xy))
    anisotropy = np.hypot(mean_xx - mean_yy, 2 * mean_xy) / max(energy, 1e-8)
    peak = np.log1p(fourth / max(energy, 1e-4) ** 2)
    laplacian = (
        plane[1:-1, 2:] + plane[1:-1, :-2] + plane[2:, 1:-1] + plane[:-2, 1:-1] - 4 * plane[1:-1, 1:-1]
    )
    curvature = float((laplacian * laplacian).mean(dtype=np.float64))
    return np.array([np.log10(1e-5 + energy), magnitude, peak, anisotropy, np.log10(1e-5 + curvature)])


def gradient_energies_names() -> tuple[str, ...]:
    """Names of the values of :func:`gradient_energies`."""
    return (
        "log gradient energy",
        "mean gradient",
        "gradient peakedness",
        "anisotropy",
        "log Laplacian energy",
    )


@cache
def _pattern_of_code() -> NDArray[np.intp]:
    bits = (np.arange(256)[:, None] >> np.arange(8)[None, :]) & 1
    changes = (bits != np.roll(bits, 1, axis=1)).sum(axis=1)
    return np.where(changes <= 2, bits.sum(axis=1), _PATTERNS - 1)


def pattern_histogram(codes: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Histogram of rotation-invariant uniform local binary patterns (Ojala et al., 2002), radius 1.

    Args:
        codes: uint8 (h, w), both at least 3.

    Returns:
        float64 (10,), shares that add to 1.
    """
    height, width = codes.shape
    centre = codes[1:-1, 1:-1]
    pattern = np.zeros(centre.shape, np.uint8)
    for bit, (down, right) in enumerate(_NEIGHBOURS):
        neighbour = codes[1 + down : height - 1 + down, 1 + right : width - 1 + right]
        pattern |= (neighbour > centre).view(np.uint8) << np.uint8(bit)
    histogram = np.bincount(pattern.ravel(), minlength=256)
    return np.bincount(_pattern_of_code(), weights=histogram, minlength=_PATTERNS) / pattern.size


def pattern_histogram_names() -> tuple[str, ...]:
    """Names of the values of :func:`pattern_histogram`."""
    return (*(f"LBP {ones} of 8" for ones in range(_PATTERNS - 1)), "LBP irregular")


@cache
def _dct_basis() -> NDArray[np.float32]:
    k, n = np.arange(_BLOCK)[:, None], np.arange(_BLOCK)[None, :]
    basis = np.cos(np.pi * (2 * n + 1) * k / (2 * _BLOCK)) * np.sqrt(2 / _BLOCK)
    basis[0] /= np.sqrt(2)
    return np.asarray(basis, np.float32)


@cache
def _dct_pairs() -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    rows, columns = np.triu_indices(_BLOCK)
    return rows[1:], columns[1:]  # without the mean of the block


def dct_energies(plane: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean energy of each frequency of the 8 × 8 DCT, both orientations together, as log10.

    Args:
        plane: float32 (h, w), both at least 8; what does not fill a block is left out.

    Returns:
        float64 (35,).
    """
    rows, columns = plane.shape[0] // _BLOCK, plane.shape[1] // _BLOCK
    basis = _dct_basis()
    blocks = np.ascontiguousarray(plane[: rows * _BLOCK, : columns * _BLOCK]).reshape(rows, _BLOCK, -1)
    vertical = np.matmul(basis, blocks)
    spectrum = vertical.reshape(-1, _BLOCK) @ basis.T
    energy = (spectrum * spectrum).reshape(rows, _BLOCK, columns, _BLOCK).mean(axis=(0, 2), dtype=np.float64)
    upper = _dct_pairs()
    return np.asarray(np.log10(1e-6 + (energy + energy.T)[upper] / 2))


def dct_energies_names() -> tuple[str, ...]:
    """Names of the values of :func:`dct_energies`."""
    return tuple(f"DCT {row},{column}" for row, column in zip(*_dct_pairs(), strict=True))
