"""From densities of haematoxylin and eosin to RGB (Beer–Lambert), through a table of all pairs.

``RGB = white · 10^−(h·S·H + e·S·E)`` with unit stain directions H and E (Ruifrok & Johnston 2001) and
densities h, e that are stored as uint8 with ``OD_SCALE`` per 255.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.synthesis.centres import Centre

__all__ = ["OD_SCALE", "stain_table", "to_rgb"]

#: Optical density of the value 255.
OD_SCALE = 1.75


def stain_table(
    centre: Centre, haematoxylin_factor: float = 1.0, eosin_factor: float = 1.0, darker: int = 0
) -> NDArray[np.uint32]:
    """The colour of every pair of densities.

    Args:
        centre: Stain directions, strengths and white of the laboratory.
        haematoxylin_factor: Factor of this slide's staining.
        eosin_factor: The same for eosin.
        darker: Grey levels that the glass is darker by (shading of the lamp).

    Returns:
        uint32 (65536,), index ``h · 256 + e``; the bytes of a value are R, G, B, 255.
    """
    steps = np.arange(256) / 255.0 * OD_SCALE
    h = _unit(centre.haematoxylin) * centre.haematoxylin_strength * haematoxylin_factor
    e = _unit(centre.eosin) * centre.eosin_strength * eosin_factor
    density = steps[:, None, None] * h + steps[None, :, None] * e
    rgb = (np.array(centre.white) - darker) * 10.0**-density
    table = np.full((256, 256, 4), 255, dtype=np.uint8)
    table[..., :3] = np.clip(np.rint(rgb), 0, 255)
    return np.ascontiguousarray(table).view(np.uint32).reshape(-1)


def to_rgb(
    table: NDArray[np.uint32], haematoxylin: NDArray[np.uint8], eosin: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Colours two density planes (h, w): uint8 (h, w, 4), the fourth channel 255."""
    index = np.left_shift(haematoxylin, 8, dtype=np.uint16)
    index |= eosin
    return table.take(index).view(np.uint8).reshape(*haematoxylin.shape, 4)


def _unit(vector: tuple[float, float, float]) -> NDArray[np.float64]:
    array = np.array(vector)
    unit: NDArray[np.float64] = array / np.linalg.norm(array)
    return unit
