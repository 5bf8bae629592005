"""Colour maps: perceptually even, told apart by people who see no red or green, unlike H&E's own colours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["COLOUR_TABLE", "colours_of"]

# Anchors of viridis (van der Walt & Smith, CC0).
_VIRIDIS = (
    "440154", "482475", "414487", "355f8d", "2a788e", "21918c", "22a884", "44bf70", "7ad151",
    "bddf26", "fde725",
)  # fmt: skip


def _table(anchors: tuple[str, ...]) -> NDArray[np.uint8]:
    points = np.array([[int(text[i : i + 2], 16) for i in (0, 2, 4)] for text in anchors], np.float64)
    where = np.linspace(0, len(points) - 1, 256)
    columns = [np.interp(where, np.arange(len(points)), points[:, channel]) for channel in range(3)]
    return np.rint(np.stack(columns, axis=1)).astype(np.uint8)


COLOUR_TABLE: NDArray[np.uint8] = _table(_VIRIDIS)
"""uint8 (256, 3)."""


def colours_of(places: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Colours of places on the bar, 0 to 1: uint8 (…, 3)."""
    colours: NDArray[np.uint8] = COLOUR_TABLE[np.clip(np.rint(places * 255), 0, 255).astype(np.int64)]
    return colours
