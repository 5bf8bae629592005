"""Colour deconvolution of one tile and the stain statistics of the descriptor."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["Stains", "separate_stains", "stain_codes", "stain_statistics", "stain_statistics_names"]

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
