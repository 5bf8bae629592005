"""Black borders and the grey of the scanner's stage beside the glass."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wsi_ncmi.tissue.colours import RATIO_STEP, Colours, strips
from wsi_ncmi.tissue.runs import drop_pieces, runs_of

__all__ = ["find_borders"]

_LEAST_UM2 = 10_000.0
# Ink is never that dark over a whole area; black of a scanner is.
_BLACK = 28
# A grey border is neutral, darker than glass, and flat.
_GREY_DENSITY, _NEUTRAL, _FLAT = 0.07, 0.12, 0.015
_LEAST_CONTACT = 0.1
_RIM_PX = 2


def find_borders(colours: Colours, pixel_um2: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Finds borders of the scan.

    Args:
        colours: Smoothed densities.
        pixel_um2: Area of a pixel.

    Returns:
        Where they are, and the same with the rim in which smoothing mixes them with what lies beside,
        bool (h, w) each.
    """
    shape = colours.brightest.shape
    border = np.empty(shape, np.bool_)
    for rows, padded, inner in strips(shape, halo=2):
        green = colours.green[padded].astype(np.float32)
        flat = ndimage.maximum_filter(green, 3) - ndimage.minimum_filter(green, 3) < _FLAT
        neutral = flat & (green > _GREY_DENSITY)
        for plane in (colours.red_ratio, colours.blue_ratio):
            neutral &= np.abs(plane[padded].astype(np.float32) * RATIO_STEP - 1.0) < _NEUTRAL
        # Flatness ends a pixel before the border does.
        neutral = ndimage.binary_dilation(neutral, iterations=1)
        border[rows] = (neutral | (colours.brightest[padded] <= _BLACK))[inner]
    runs = runs_of(border)
    contact = np.zeros(runs.n_pieces)
    for at_edge, side in (
        (runs.rows == 0, shape[1]),
        (runs.rows == shape[0] - 1, shape[1]),
        (runs.starts == 0, shape[0]),
        (runs.ends == shape[1], shape[0]),
    ):
        across = side == shape[1] and bool(np.isin(runs.rows[at_edge], (0, shape[0] - 1)).all())
        length = (runs.ends - runs.starts)[at_edge] if across else np.ones(int(at_edge.sum()))
        touched = np.bincount(runs.pieces[at_edge], length, runs.n_pieces)
        contact = np.maximum(contact, touched / side)
    drop_pieces(border, runs, (contact < _LEAST_CONTACT) | (runs.areas() * pixel_um2 < _LEAST_UM2))
    return border, ndimage.binary_dilation(border, iterations=_RIM_PX) if border.any() else border
