"""Tile values for the tests of this folder."""

from __future__ import annotations

import numpy as np

from wsi_ncmi.reporting.heatmaps import TileValues
from wsi_ncmi.reporting.heatmaps.values import model_layers


def values(
    columns: int = 6, rows: int = 5, tile: tuple[float, float] = (100.5, 99.5), seed: int = 0
) -> TileValues:
    """A grid with some tiles missing."""
    rng = np.random.default_rng(seed)
    index = np.flatnonzero(rng.uniform(size=columns * rows) < 0.8)
    y, x = np.divmod(index, columns)
    coords = np.rint(np.stack((x * tile[0], y * tile[1]), axis=1)).astype(np.int64)
    attention = rng.exponential(size=len(index))
    evidence = rng.dirichlet((1, 1, 1), len(index))
    layers = model_layers(attention / attention.sum(), evidence, ("a", "b", "c"))
    size = round(columns * tile[0]) + 37, round(rows * tile[1]) + 11
    return TileValues("slide", coords, tile, size, layers)
