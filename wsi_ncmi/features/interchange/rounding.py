"""From the precision of others to float16, with what that costs said aloud."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.features.interchange.bag import ForeignFileError
from wsi_ncmi.features.rows import is_finite

__all__ = ["WORST_ERROR", "to_half"]

_PART = 1 << 16
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
    largest = max(float(features.max(initial=0)), -float(features.min(initial=0)))
    half = np.empty(features.shape, np.float16)
    squares = errors = 0.0
    # In parts that stay in the processor's cache, and never a second copy of the whole in memory.
    rows = max(1, _PART // max(features.shape[1], 1))
    for start in range(0, len(features), rows):
        part = features[start : start + rows]
        with np.errstate(over="ignore"):
            half[start : start + rows] = part
        if largest:
            # Relative to the largest number: squares of tiny or huge ones would leave the range of floats.
            flat = part.ravel() / largest
            with np.errstate(invalid="ignore"):  # beyond float16's range; refused below
                off = half[start : start + rows].ravel() / part.dtype.type(largest) - flat
                squares += float(np.dot(flat, flat))
                errors += float(np.dot(off, off))
    if not is_finite(half):
        raise ForeignFileError(
            f"{path} holds a number of {largest:.4g}, beyond the 65504 of float16; scale the features (such "
            "as by layer normalisation) before the conversion."
        )
    error = float(np.sqrt(errors / squares)) if squares else 0.0
    if error > WORST_ERROR:
        raise ForeignFileError(
            f"{path} holds numbers so small (at most {largest:.1e}) that float16 would lose {error:.0%} of "
            "them; scale the features before the conversion."
        )
    return half, error
