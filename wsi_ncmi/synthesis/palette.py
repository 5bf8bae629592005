"""Textures and nuclei of one scanner resolution, made once a process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.synthesis.nuclei import KINDS, draw_stamps
from wsi_ncmi.synthesis.textures import Atlas, draw_atlas

__all__ = ["BLOCK_PX", "Palette", "palette_for"]

#: Edge of the blocks in which the base is composed, and the largest tile of a slide, px.
BLOCK_PX = 512
_VARIANTS = 128
_PALETTE_STREAM = 0x50414C


@dataclass(frozen=True)
class Palette:
    """What slides of one resolution are composed of.

    Attributes:
        mpp: Microns per pixel.
        atlas: Base textures.
        stamps: Nucleus kind → stamps; ``spindle_v`` are the spindle ones turned by 90°.
        glass_noise: int8 (BLOCK_PX, BLOCK_PX, 3), noise of the camera on empty glass, grey levels.
    """

    mpp: float
    atlas: Atlas
    stamps: dict[str, list[NDArray[np.uint8]]]
    glass_noise: NDArray[np.int8]


@lru_cache(maxsize=6)
def palette_for(seed: int, mpp: float) -> Palette:
    """The palette of a resolution; the same seed and mpp give the same one in every process."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, _PALETTE_STREAM, round(mpp * 1e6)]))
    atlas = draw_atlas(rng, mpp, BLOCK_PX)
    stamps = {name: draw_stamps(rng, kind, mpp, _VARIANTS) for name, kind in KINDS.items()}
    stamps["spindle_v"] = [np.ascontiguousarray(stamp.T) for stamp in stamps["spindle"]]
    noise = np.clip(np.rint(rng.normal(0.0, 0.8, (BLOCK_PX, BLOCK_PX, 3))), -3, 3).astype(np.int8)
    return Palette(mpp, atlas, stamps, noise)
