"""Measuring the stain of an image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.features.stain.density import sample_pixels
from wsi_ncmi.features.stain.macenko import MacenkoModel
from wsi_ncmi.features.stain.model import StainModel
from wsi_ncmi.features.stain.reinhard import ReinhardModel

__all__ = ["fit_stain", "model_class"]

_METHODS: dict[str, type[StainModel]] = {model.method: model for model in (MacenkoModel, ReinhardModel)}


def model_class(method: str) -> type[StainModel]:
    """The class of models of a method.

    Raises:
        ValueError: There is no such method.
    """
    if method not in _METHODS:
        raise ValueError(f"there is no stain normalisation {method!r}; choose from {', '.join(_METHODS)}")
    return _METHODS[method]


def fit_stain(pixels: NDArray[np.uint8], method: str) -> StainModel:
    """Measures the stain of an image, or of tiles of one slide together.

    The same pixels always give the same model.

    Args:
        pixels: uint8 (h, w, 3) or (n, h, w, 3); glass may be among them and doesn't count.
        method: ``macenko`` or ``reinhard``.

    Returns:
        The model.

    Raises:
        StainFitError: Too little tissue, a single stain (Macenko), or no contrast (Reinhard).
        ValueError: Not such pixels, or no such method.
    """
    return model_class(method).fit(sample_pixels(pixels))
