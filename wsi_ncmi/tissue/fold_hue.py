"""Whether a fold has the hue of the tissue beside it: the hue along its bar against that beside the bar."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.tissue.bars import DIRECTIONS, SIDE_UM

__all__ = ["other_hue"]

_LEAST_DENSITY = 0.02
# A pixel's hue in steps and, in the high bits, a one where it counts: both are added up at once.
_STEPS, _SHIFT, _COUNT_BITS = 4096, 5.0, 24


def other_hue(
    red: NDArray[np.float32],
    green: NDArray[np.float32],
    solid: NDArray[np.bool_],
    places: tuple[NDArray[np.int64], NDArray[np.int64]],
    direction: NDArray[np.uint8],
    pixel_um: tuple[float, float],
    half_bar_um: float,
    steps: int,
) -> NDArray[np.float64]:
    """How far the hue of bars is from that of the bars beside them, at the side where it is larger.

    Hue is the logarithm of the density of red over that of green, the mean over the samples that count.

    Args:
        red: Smoothed density of red, float32 (h, w); goes on beyond its edges with the values there.
        green: The same of green.
        solid: Where there is tissue to compare with; other samples don't count.
        places: Rows and columns of the bars' middles, int64 (n,) each.
        direction: Number of the direction of each, uint8 (n,), as ``ridges`` gives it.
        pixel_um: Width and height of a pixel.
        half_bar_um: Half the length of the bars.
        steps: Samples on either side of the middle, at most 31.

    Returns:
        float64 (n,).
    """
    hue = np.maximum(red, np.float32(_LEAST_DENSITY))
    hue /= np.maximum(green, np.float32(_LEAST_DENSITY))
    np.log(hue, out=hue)
    hue += np.float32(_SHIFT)
    hue *= np.float32(_STEPS)
    np.clip(hue, 0.0, 2 * _SHIFT * _STEPS, out=hue)
    margin = math.ceil((half_bar_um + SIDE_UM) / min(pixel_um)) + 1
    packed = (hue.astype(np.int32) + np.int32(1 << _COUNT_BITS)) * solid
    plane = np.pad(packed, margin, mode="edge")
    across, flat = plane.shape[1], plane.reshape(-1)
    middle = (places[0] + margin) * across + places[1] + margin
    along = np.linspace(-half_bar_um, half_bar_um, 2 * steps + 1)
    found = np.zeros(len(middle))
    for number in range(DIRECTIONS):
        chosen = np.flatnonzero(direction == number)
        if not len(chosen):
            continue
        cos, sin = math.cos(number * math.pi / DIRECTIONS), math.sin(number * math.pi / DIRECTIONS)
        means = []
        for side in (0.0, SIDE_UM, -SIDE_UM):
            dx = np.rint((along * cos - side * sin) / pixel_um[0]).astype(np.int64)
            dy = np.rint((along * sin + side * cos) / pixel_um[1]).astype(np.int64)
            total = np.zeros(len(chosen), np.int32)
            # From the first place on that any bar may touch, so that places stay positive.
            first = margin * (across + 1)
            near = middle[chosen] - first
            for offset in (dy * across + dx + first).tolist():
                total += flat[offset:].take(near)
            count = total >> _COUNT_BITS
            summed = (total & ((1 << _COUNT_BITS) - 1)) / _STEPS - _SHIFT * count
            means.append(summed / np.maximum(count, 1))
        found[chosen] = np.maximum(np.abs(means[0] - means[1]), np.abs(means[0] - means[2]))
    return found
