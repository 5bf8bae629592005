"""Whether two small pictures show the same tissue inside, whatever its outline.

Two lymph nodes side by side look alike to any hash of low frequencies; their inside does not. What is
compared is the structure within the tissue, as a masked normalised correlation over small shifts (Padfield
2012, "Masked object registration in the Fourier domain", IEEE TIP 21(5)).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["same_texture"]

_SIGMA = 3.0  # structure up to a few pixels; what is coarser follows the outline
_EDGE = 2
_SHIFT = 5
_LEAST_OVERLAP = 0.3

_Floats = NDArray[np.float64]


def same_texture(
    first: NDArray[np.uint8],
    first_tissue: NDArray[np.bool_],
    second: NDArray[np.uint8],
    second_tissue: NDArray[np.bool_],
) -> float:
    """How well the inside of two pictures agrees in the best of eight turns and mirrorings.

    Args:
        first: uint8 (n, n) grey picture, cropped to its tissue.
        first_tissue: bool (n, n), where there is tissue.
        second: The other picture, of the same size.
        second_tissue: Its tissue.

    Returns:
        The largest correlation, at most 1; 0 where there is no inside to compare.
    """
    a, core_a = _inside(first, first_tissue)
    b, core_b = _inside(second, second_tissue)
    if not core_a.any() or not core_b.any():
        return 0.0
    return max(
        _correlation(a, core_a, np.rot90(picture, k), np.rot90(core, k))
        for picture, core in ((b, core_b), (b.T, core_b.T))
        for k in range(4)
    )


def _inside(grey: NDArray[np.uint8], tissue: NDArray[np.bool_]) -> tuple[_Floats, NDArray[np.bool_]]:
    """Deviation from the mean of the tissue around, and where it counts: not at the tissue's edge."""
    from scipy import ndimage

    weight = ndimage.gaussian_filter(tissue.astype(np.float64), _SIGMA)
    around = ndimage.gaussian_filter(np.where(tissue, grey.astype(np.float64), 0.0), _SIGMA)
    core: NDArray[np.bool_] = ndimage.binary_erosion(tissue, iterations=_EDGE, border_value=1)
    return np.where(core, grey - around / np.maximum(weight, 1e-6), 0.0), core


def _correlation(a: _Floats, core_a: NDArray[np.bool_], b: _Floats, core_b: NDArray[np.bool_]) -> float:
    size = (2 * a.shape[0], 2 * a.shape[1])

    def spectrum(values: _Floats) -> NDArray[np.complex128]:
        return np.fft.rfft2(values, size)

    def over_shifts(x: NDArray[np.complex128], y: NDArray[np.complex128]) -> _Floats:
        near = np.r_[0 : _SHIFT + 1, -_SHIFT:0]
        found: _Floats = np.fft.irfft2(x * y.conj(), size)[np.ix_(near, near)]
        return found

    mask_a, mask_b = spectrum(core_a.astype(np.float64)), spectrum(core_b.astype(np.float64))
    shared = over_shifts(mask_a, mask_b)
    energy = over_shifts(spectrum(a * a), mask_b) * over_shifts(mask_a, spectrum(b * b))
    together = over_shifts(spectrum(a), spectrum(b)) / np.sqrt(np.maximum(energy, 1e-9))
    enough = shared > _LEAST_OVERLAP * min(core_a.sum(), core_b.sum())
    return float(np.where(enough, together, 0.0).max())
