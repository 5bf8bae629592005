"""Transparency to colour, by OpenSlide's convention: straight alpha over the slide's background colour."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

__all__ = ["WHITE", "background_colour", "composite"]

WHITE = (255, 255, 255)
_HEX_COLOUR = re.compile(r"#?([0-9A-Fa-f]{6})")


def background_colour(properties: Mapping[str, str]) -> tuple[int, int, int]:
    """The RGB colour of places without pixels.

    Args:
        properties: A slide's properties; ``openslide.background-color`` is six hex digits where present.

    Returns:
        ``(red, green, blue)``, white when the property is absent or malformed.
    """
    match = _HEX_COLOUR.fullmatch(properties.get("openslide.background-color", "").strip())
    if match is None:
        return WHITE
    value = int(match.group(1), 16)
    return (value >> 16, (value >> 8) & 0xFF, value & 0xFF)


def composite(pixels: NDArray[np.uint8], background: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Composites straight RGBA over a colour, with the same rounding as ``PIL.Image.composite``.

    That is what OpenSlide's own DeepZoom generator does with its regions, so both give the same pixels.

    Args:
        pixels: uint8 ``(H, W, 4)`` straight RGBA, or ``(H, W, 3)`` RGB, which is passed on.
        background: RGB colour under the transparent pixels.

    Returns:
        uint8 ``(H, W, 3)``, C-contiguous and writable.
    """
    if pixels.shape[2] == 3:
        return np.require(pixels, requirements=["C", "W"])
    rgb = np.ascontiguousarray(pixels[:, :, :3])
    alpha = pixels[:, :, 3]
    if alpha.min() == 255:
        return rgb
    # Most places are opaque or, where tiles are absent, wholly transparent: only the few others are blended.
    rgb[alpha == 0] = background
    blend = (alpha > 0) & (alpha < 255)
    if blend.any():
        weight = alpha[blend].astype(np.uint32)[:, None]
        under = np.asarray(background, dtype=np.uint32)[None, :]
        mixed = rgb[blend] * weight + under * (255 - weight) + 128
        rgb[blend] = ((mixed + (mixed >> 8)) >> 8).astype(np.uint8)
    return rgb
