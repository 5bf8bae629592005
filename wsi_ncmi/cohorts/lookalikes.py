"""Near-duplicates: slides that show the same piece of tissue although their files differ.

Another compression, another size or a turned, mirrored or tinted copy of one slide has other bytes, so no
fingerprint finds it. Its thumbnail still looks the same: a perceptual hash (the signs of the low frequencies
of a cosine transform, after Zauner 2010, "Implementation and benchmarking of perceptual image hash
functions") proposes pairs, in all eight turns and mirrorings; the correlation of the thumbnails' detail
and then that of the structure inside the tissue decide.

The picture is cropped to its tissue first, so that the glass around it counts for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.cohorts.texture import same_texture

__all__ = ["Look", "Lookalike", "find_lookalikes", "look_of"]

_SIDE = 48
_FREQUENCIES = 12
# Calibrated on 300 unrelated real tiles and 24 synthetic slides: 46,000 pairs differ in 30 % of the bits or
# more; copies in JPEG quality 30, a quarter of the size, brighter by 10 %, tinted, turned, or cut by 3 % at
# every edge in at most 22 %, with a correlation of at least 0.83. Where tissue fills the picture from edge to
# edge, a cut moves everything and isn't found.
_MAX_DIFFERING_BITS = 0.24
_MIN_CORRELATION = 0.8
# Of 1,225 pairs of synthetic slides the few that pass so far (one outline) agree inside by 0.11 at most, 60
# others by 0.14, real tiles by 0.37; copies as above by 0.45 or more, those of a third of the size by 0.72.
_MIN_TEXTURE = 0.4
_FINE_SIDE = 96
_FLAT = 2.0
_BLOCK = 512


@dataclass(frozen=True)
class Look:
    """What a slide looks like.

    Attributes:
        bits: float32 (8, 143) signs (−1, 1) of the low frequencies in each of the eight orientations.
        detail: float32 (8, 576) the picture without its coarsest shading, mean 0 and length 1, same order.
        picture: uint8 (96, 96) the picture in grey, upright.
        tissue: bool (96, 96) where it is no glass.
    """

    bits: NDArray[np.float32]
    detail: NDArray[np.float32]
    picture: NDArray[np.uint8]
    tissue: NDArray[np.bool_]


@dataclass(frozen=True)
class Lookalike:
    """Two slides that look the same; ``correlation`` of their detail in the orientation that fits best."""

    first: str
    second: str
    correlation: float


def look_of(pixels: NDArray[np.uint8]) -> Look | None:
    """The look of a thumbnail.

    Args:
        pixels: uint8 (h, w, 3) RGB.

    Returns:
        Its look, or None where there is nothing to see (an empty slide looks like every other empty slide).
    """
    whole = pixels.astype(np.float32).mean(axis=2)
    darkest_glass = _darkest_glass(whole)
    grey = _cropped_to_content(whole, darkest_glass)
    if min(grey.shape) < 8 or float(grey.std()) < _FLAT:
        return None
    small = _resized(grey, _SIDE)
    turned = [np.rot90(picture, k) for picture in (small, small.T) for k in range(4)]
    cosines = _cosines(_SIDE)[:_FREQUENCIES]
    coefficients = np.stack([(cosines @ picture @ cosines.T).ravel()[1:] for picture in turned])
    bits = np.where(coefficients > 0, 1.0, -1.0).astype(np.float32)
    detail = np.stack([_detail(picture) for picture in turned])
    fine = _resized(grey, _FINE_SIDE)
    picture = np.clip(np.rint(fine), 0, 255).astype(np.uint8)
    return Look(bits, detail, picture, fine < darkest_glass)


def find_lookalikes(looks: Mapping[str, Look]) -> list[Lookalike]:
    """All pairs that look the same.

    Args:
        looks: Slide id → look.

    Returns:
        Pairs with ``first < second``, sorted.
    """
    names = sorted(looks)
    if len(names) < 2:
        return []
    upright = np.stack([looks[name].bits[0] for name in names])
    found: list[Lookalike] = []
    for start in range(0, len(names), _BLOCK):
        block = np.stack([looks[name].bits for name in names[start : start + _BLOCK]])
        agreement = (block.reshape(-1, block.shape[2]) @ upright.T).reshape(len(block), 8, len(names))
        differing = (1.0 - agreement.max(axis=1) / block.shape[2]) / 2.0
        for i, j in np.argwhere(differing <= _MAX_DIFFERING_BITS):
            a, b = start + int(i), int(j)
            if a < b:
                correlation = float((looks[names[a]].detail @ looks[names[b]].detail[0]).max())
                if correlation >= _MIN_CORRELATION and _inside_agrees(looks[names[a]], looks[names[b]]):
                    found.append(Lookalike(names[a], names[b], correlation))
    return sorted(found, key=lambda pair: (pair.first, pair.second))


def _inside_agrees(a: Look, b: Look) -> bool:
    return same_texture(a.picture, a.tissue, b.picture, b.tissue) >= _MIN_TEXTURE


def _darkest_glass(grey: NDArray[np.float32]) -> float:
    # Glass is the brightest thing on a slide; what is clearly darker is tissue (or a whole tile).
    light = float(np.quantile(grey, 0.98))
    return light - max(12.0, 0.1 * light)


def _cropped_to_content(grey: NDArray[np.float32], darkest_glass: float) -> NDArray[np.float32]:
    content = grey < darkest_glass
    rows, columns = content.mean(axis=1) > 0.01, content.mean(axis=0) > 0.01
    if not rows.any() or not columns.any():
        return grey
    y, x = np.flatnonzero(rows), np.flatnonzero(columns)
    return grey[y[0] : y[-1] + 1, x[0] : x[-1] + 1]


def _resized(grey: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    from PIL import Image

    picture = Image.fromarray(grey).resize((side, side), Image.Resampling.BOX, reducing_gap=None)
    return np.asarray(picture, dtype=np.float32)


def _cosines(n: int) -> NDArray[np.float32]:
    k, i = np.arange(n)[:, None], np.arange(n)[None, :]
    return np.cos(np.pi * k * (2 * i + 1) / (2 * n)).astype(np.float32)


def _detail(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    # Without the coarsest shading, in which all round pieces of tissue are alike, and without the finest
    # structure, which a few pixels' shift destroys.
    coarse = picture.reshape(24, 2, 24, 2).mean(axis=(1, 3))
    shading = np.kron(coarse.reshape(4, 6, 4, 6).mean(axis=(1, 3)), np.ones((6, 6), dtype=np.float32))
    detail = (coarse - shading).ravel()
    return np.asarray(detail / max(float(np.linalg.norm(detail)), 1e-6), dtype=np.float32)
