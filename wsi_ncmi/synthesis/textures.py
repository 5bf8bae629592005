"""Base textures: what lies between the nuclei, as periodic planes of haematoxylin and eosin density.

Units: 1/255 of the density scale of ``wsi_ncmi.synthesis.stain`` for both stains.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.synthesis.noise import periodic_noise, warp

__all__ = ["PERIOD_PX", "TISSUES", "Atlas", "draw_atlas"]

#: Period of every texture; the planes are stored with one block more, so that any block is one slice.
PERIOD_PX = 1024
TISSUES = ("cortex", "germinal", "sinus", "stroma", "stroma_v", "tumour", "blood")


@dataclass(frozen=True)
class Atlas:
    """Textures of one scanner resolution.

    Attributes:
        haematoxylin: Tissue → uint8 (P, P), P = ``PERIOD_PX`` + the largest block.
        eosin: The same for eosin.
    """

    haematoxylin: dict[str, NDArray[np.uint8]]
    eosin: dict[str, NDArray[np.uint8]]


def draw_atlas(rng: np.random.Generator, mpp: float, block_px: int) -> Atlas:
    """Draws all textures at ``mpp`` microns per pixel, to be cut in blocks of at most ``block_px``."""
    n = PERIOD_PX
    fine = periodic_noise(rng, n, 0.35 / mpp, 0.35 / mpp)
    grain = periodic_noise(rng, n, 1.1 / mpp, 1.1 / mpp)
    cells = periodic_noise(rng, n, 3.0 / mpp, 3.0 / mpp)
    broad = periodic_noise(rng, n, 14.0 / mpp, 14.0 / mpp)
    bend_a, bend_b = (periodic_noise(rng, n, 22.0 / mpp, 22.0 / mpp) for _ in range(2))
    reach = 9.0 / mpp
    fibres = warp(periodic_noise(rng, n, 16.0 / mpp, 0.9 / mpp), bend_b * 0, bend_a * reach)
    bundles = warp(periodic_noise(rng, n, 30.0 / mpp, 3.0 / mpp), bend_b * 0, bend_a * reach)
    # A net of cytoplasm: bright lines where the noise passes zero look like clefts between cells.
    net = np.exp(-((grain * 0.6 + cells) ** 2) / 0.10)
    gaps = np.clip(cells * 0.9 + grain * 0.5 - 0.75, 0.0, 1.0)

    stroma_e = 78 + 14 * fibres + 12 * bundles + 4 * fine - 44 * np.clip(bundles * -1.0 - 1.05, 0, 1)
    stroma_h = 12 + 4 * fibres + 3 * fine
    planes: dict[str, tuple[NDArray[np.floating], NDArray[np.floating]]] = {
        "cortex": (
            34 + 9 * grain + 6 * cells + 5 * fine - 26 * gaps,
            42 + 7 * cells + 6 * grain + 4 * fine - 30 * gaps,
        ),
        "germinal": (
            21 + 5 * grain + 4 * fine - 10 * gaps,
            48 + 8 * cells + 6 * grain + 4 * fine - 22 * gaps,
        ),
        "sinus": (
            9 + 4 * grain + 3 * fine - 8 * gaps,
            34 + 12 * cells + 7 * grain + 4 * fine + 14 * net - 40 * gaps,
        ),
        "stroma": (stroma_h, stroma_e),
        "stroma_v": (np.ascontiguousarray(stroma_h.T), np.ascontiguousarray(stroma_e.T)),
        "tumour": (
            34 + 6 * grain + 5 * broad + 4 * fine - 16 * net,
            66 + 9 * cells + 7 * grain + 6 * broad + 4 * fine - 30 * net,
        ),
        "blood": (6 + 3 * fine, 124 + 26 * np.sign(cells) * np.abs(cells) ** 0.5 + 6 * fine),
    }
    pad = (0, block_px)

    def stored(plane: NDArray[np.floating]) -> NDArray[np.uint8]:
        return np.pad(np.clip(plane, 0, 255).astype(np.uint8), (pad, pad), mode="wrap")

    return Atlas(
        {name: stored(pair[0]) for name, pair in planes.items()},
        {name: stored(pair[1]) for name, pair in planes.items()},
    )
