"""From a tile's number to a place on the colour bar: two named scales.

``percentile`` ranks the tiles of one slide: it always uses the whole bar and says nothing of how strong the
numbers are. ``absolute`` means the same on every slide: attention as a multiple of even attention (1/N), on a
logarithmic bar from 1/16 to 16; evidence and shares as they are, from 0 to 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.reporting.heatmaps.values import TileLayer

__all__ = ["SCALES", "check_scale", "scale_ticks", "scale_title", "scaled"]

SCALES = ("percentile", "absolute")

_MOST_ATTENTION = 16.0


def check_scale(scale: str) -> None:
    """Refuses a scale that isn't one of ``SCALES``.

    Raises:
        InputError: It isn't.
    """
    if scale not in SCALES:
        raise InputError(f"There is no scale {scale!r}; choose percentile or absolute.")


def scaled(layer: TileLayer, scale: str) -> NDArray[np.float32]:
    """Places on the colour bar, 0 to 1.

    Args:
        layer: The numbers.
        scale: One of ``SCALES``.

    Returns:
        float32 (N,). Percentiles are mid-ranks, so that equal numbers get equal colours: (tiles below + half
        of the equal ones) / N.

    Raises:
        InputError: No such scale.
    """
    check_scale(scale)
    values = layer.values.astype(np.float64)
    if len(values) == 0:
        return np.empty(0, np.float32)
    if scale == "percentile":
        _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        below = np.cumsum(counts) - counts
        ranks: NDArray[np.float64] = (below + counts / 2)[inverse] / len(values)
        return ranks.astype(np.float32)
    if layer.kind == "attention":
        multiple = np.maximum(values * len(values), 1e-12)
        place = 0.5 + np.log(multiple) / (2 * np.log(_MOST_ATTENTION))
        clipped: NDArray[np.float64] = np.clip(place, 0, 1)
        return clipped.astype(np.float32)
    return np.clip(values, 0, 1).astype(np.float32)


def scale_title(layer: TileLayer, scale: str) -> str:
    """What the colour bar shows, in words."""
    check_scale(scale)
    if scale == "percentile":
        return f"{layer.name}: percentile among this slide's tiles"
    if layer.kind == "attention":
        return f"{layer.name}: absolute, multiple of even attention"
    if layer.kind == "evidence":
        return f"{layer.name}: absolute, probability of the tile alone"
    return f"{layer.name}: absolute"


def scale_ticks(layer: TileLayer, scale: str) -> tuple[tuple[float, str], ...]:
    """Places on the bar and what stands there."""
    check_scale(scale)
    if scale == "percentile":
        return ((0.0, "0"), (0.5, "50"), (1.0, "100 %"))
    if layer.kind == "attention":
        return ((0.0, "< 1/16"), (0.25, "1/4"), (0.5, "1"), (0.75, "4"), (1.0, "> 16"))
    return ((0.0, "0"), (0.5, "0.5"), (1.0, "1"))
