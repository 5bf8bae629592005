"""From the precision of others to float16, with what that costs said aloud."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.features.interchange.bag import ForeignFileError
from wsi_ncmi.features.rows import is_finite

__all__ = ["WORST_ERROR", "to_half"]

WORST_ERROR = 1e-3
"""Root of the mean squared error over that of the values: numbers within float16's range stay below 3e-4."""


def to_half(features: NDArray[Any], path: Path) -> tuple[NDArray[np.float16], float]:
    """Rounds features to float16.

    Args:
        features: Floating point (N, D).
        path: Their file, for the message.

    Returns:
        float16 (N, D), and the relative error of rounding: 0 where every number was a float16 already.

    Raises:
        ForeignFileError: A number is not finite, is beyond float16's range, or the numbers are so small that
            float16 loses more than a thousandth of them.
    """
    half_already = features.dtype == np.float16
    if not (is_finite(features) if half_already else np.isfinite(features).all()):
        raise ForeignFileError(f"{path} holds NaN or infinity; make the features of this slide again.")
    if half_already:
        return features.astype(np.float16, copy=False), 0.0
    with np.errstate(over="ignore"):
        half = features.astype(np.float16)
    if not np.isfinite(half).all():
        raise ForeignFileError(
            f"{path} holds the number {float(np.abs(features).max()):.4g}, beyond the 65504 of float16; "
            "scale the "
            "features (such as by layer normalisation) before the conversion."
        )
    exact = features.astype(np.float64, copy=False)
    scale = float(np.sqrt(np.mean(exact**2))) if exact.size else 0.0
    if scale == 0.0:
        return half, 0.0
    error = float(np.sqrt(np.mean((half.astype(np.float64) - exact) ** 2))) / scale
    if error > WORST_ERROR:
        raise ForeignFileError(
            f"{path} holds numbers so small (about {scale:.1e}) that float16 would lose {error:.0%} of them; "
            "scale "
            "the features before the conversion."
        )
    return half, error
