"""Stain densities of one tile, their statistics and their texture (gradients, local patterns, block DCT)."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

# Rows: haematoxylin, eosin, DAB as absorbed in R, G, B (Ruifrok and Johnston, 2001, "Quantification of
# histochemical staining by color deconvolution"). On H&E the third axis is what neither stain explains.
_RGB_FROM_HED = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
# The white point may be believed where the tile shows some glass; a tile full of tissue shows none, and its
# brightest pixels must not be taken for it. A scanner's white is hardly ever darker than this.
_DARKEST_WHITE = 225
_CODE_STEP = 1.0 / 64.0  # optical density of one step of the 8-bit planes (0 … 3.98)
_TISSUE_OD = 0.15
_PLANES = ("haematoxylin", "eosin", "residual", "red", "green", "blue")


@dataclass(frozen=True)
class Stains:
    """Optical densities of one tile.

    Attributes:
        planes: float32 (6, h, w): haematoxylin, eosin, residual, then red, green, blue optical density
            (natural logarithm, 0 = as bright as the tile's white point).
        codes: uint8 (2, h, w): haematoxylin and eosin in steps of 1/64, clipped to 0 … 255.
    """

    planes: NDArray[np.float32]
    codes: NDArray[np.uint8]

    @property
    def haematoxylin(self) -> NDArray[np.float32]:
        """Haematoxylin density, float32 (h, w)."""
        return np.asarray(self.planes[0])

    @property
    def eosin(self) -> NDArray[np.float32]:
        """Eosin density, float32 (h, w)."""
        return np.asarray(self.planes[1])


@cache
def _unmixing() -> NDArray[np.float32]:
    unit = _RGB_FROM_HED / np.linalg.norm(_RGB_FROM_HED, axis=1, keepdims=True)
    return np.ascontiguousarray(np.linalg.inv(unit).T, dtype=np.float32)


@cache
def _density_of_level() -> NDArray[np.float32]:
    return np.asarray(-np.log((np.arange(256) + 1.0) / 256.0), np.float32)


def separate_stains(tile: NDArray[np.uint8]) -> Stains:
    """Turns RGB into stain densities against the tile's own white point.

    Args:
        tile: uint8 (h, w, 3), RGB.

    Returns:
        The six density planes and the 8-bit haematoxylin and eosin planes.
    """
    height, width, _ = tile.shape
    table = _density_of_level()
    planes = np.empty((6, height, width), np.float32)
    for channel in range(3):
        values = np.ascontiguousarray(tile[..., channel])
        white = max(
            int(_quantile_codes(np.bincount(values.ravel(), minlength=256), (0.99,))[0]), _DARKEST_WHITE
        )
        np.take(np.maximum(table - table[white], 0.0), values, out=planes[3 + channel])
    np.matmul(_unmixing(), planes[3:].reshape(3, -1), out=planes[:3].reshape(3, -1))
    return Stains(planes, stain_codes(planes[:2]))


def stain_codes(density: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Density in steps of 1/64, clipped to 0 … 255 (densities 0 … 3.98)."""
    return np.asarray(np.clip(density / np.float32(_CODE_STEP), 0, 255), np.uint8)


def _quantile_codes(histogram: NDArray[np.intp], quantiles: tuple[float, ...]) -> NDArray[np.float64]:
    cumulative = np.cumsum(histogram)
    return np.asarray(np.searchsorted(cumulative, np.asarray(quantiles) * cumulative[-1]), np.float64)


def stain_statistics(stains: Stains) -> NDArray[np.float64]:
    """Means, spreads, quantiles and correlations of the density planes.

    Args:
        stains: Densities of one tile.

    Returns:
        float64 vector, in the order of :func:`stain_statistics_names`.
    """
    flat = stains.planes.reshape(6, -1)
    count = flat.shape[1]
    means = flat.mean(axis=1, dtype=np.float64)
    centred = flat - means[:, None].astype(np.float32)
    covariance = (centred @ centred.T).astype(np.float64) / count
    spreads = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    skews = np.einsum("ij,ij,ij->i", centred, centred, centred).astype(np.float64) / count
    # A plain plane has neither skew nor correlation: 0, not 0/0.
    skews = np.where(spreads > 1e-3, skews / np.maximum(spreads, 1e-3) ** 3, 0.0)
    product = spreads[:, None] * spreads[None, :]
    correlation = np.where(product > 1e-6, covariance / np.maximum(product, 1e-6), 0.0)
    # The residual takes both signs: shifted by 2 so that all planes fit the same 8-bit code.
    residual = stain_codes(flat[2] + np.float32(2.0))
    quantiles = [
        _quantile_codes(np.bincount(plane.ravel(), minlength=256), _QUANTILES) * _CODE_STEP
        for plane in (stains.codes[0], stains.codes[1], residual)
    ]
    density = flat[3:].sum(axis=0)
    tissue = float((density > 3 * _TISSUE_OD).mean())
    share = means[3:] / max(means[3:].sum(), 1e-3)
    return np.concatenate(
        [
            means,
            spreads,
            np.clip(skews, -10, 10),
            *quantiles,
            np.clip(correlation[_pairs()], -1, 1),
            share,
            [tissue],
        ]
    )


def _pairs() -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    return np.array([0, 0, 1, 3, 3, 4]), np.array([1, 2, 2, 4, 5, 5])


def stain_statistics_names() -> tuple[str, ...]:
    """Names of the values of :func:`stain_statistics`."""
    names = [f"{plane} {what}" for what in ("mean", "sd", "skew") for plane in _PLANES]
    names += [f"{plane} q{quantile:g}" for plane in _PLANES[:3] for quantile in _QUANTILES]
    names += [f"correlation {_PLANES[i]} {_PLANES[j]}" for i, j in zip(*_pairs(), strict=True)]
    return (*names, "share red", "share green", "share blue", "tissue share")


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
