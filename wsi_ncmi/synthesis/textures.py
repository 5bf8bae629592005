"""Base textures and stamps of nuclei at one scanner resolution.

Units: 1/255 of the density scale of ``wsi_ncmi.synthesis.centres`` for both stains.

A stamp is drawn once at the scanner's microns per pixel and pasted thousands of times; nuclei are thereby
whole wherever they lie, and every slide has its own arrangement.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.synthesis.fields import periodic_noise, warp

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


@dataclass(frozen=True)
class NucleusKind:
    """Appearance of one kind of nucleus.

    Attributes:
        diameter_um: Mean diameter, µm.
        spread: Relative standard deviation of the diameter.
        elongation: Mean ratio of the long to the short axis.
        irregularity: Relative amplitude of the outline's waves.
        density: Haematoxylin in units of 1/255 of the scale, inside.
        clumps: Relative amplitude of the chromatin's texture.
        rim: Extra density of the nuclear membrane, relative (vesicular nuclei).
        nucleolus: Probability of a nucleolus.
        turn: Largest angle between the long axis and the x axis, radians (π/2: any direction).
    """

    diameter_um: float
    spread: float
    elongation: float
    irregularity: float
    density: float
    clumps: float
    rim: float
    nucleolus: float
    turn: float = np.pi / 2


NUCLEUS_KINDS = {
    "lymphocyte": NucleusKind(6.4, 0.10, 1.12, 0.035, 138, 0.22, 0.10, 0.0),
    "germinal": NucleusKind(8.6, 0.16, 1.25, 0.06, 80, 0.24, 0.35, 0.5),
    "histiocyte": NucleusKind(7.8, 0.15, 1.55, 0.06, 74, 0.20, 0.40, 0.4),
    "spindle": NucleusKind(5.4, 0.18, 3.6, 0.05, 112, 0.15, 0.10, 0.0, 0.4),
    "tumour": NucleusKind(12.2, 0.20, 1.30, 0.09, 142, 0.26, 0.25, 0.7),
}


def draw_stamps(
    rng: np.random.Generator, kind: NucleusKind, mpp: float, count: int
) -> list[NDArray[np.uint8]]:
    """Draws ``count`` nuclei.

    Args:
        rng: Source of randomness.
        kind: Which kind.
        mpp: Microns per pixel.
        count: How many variants.

    Returns:
        uint8 arrays (h, w) of haematoxylin density, 0 outside the nucleus.
    """
    chromatin = periodic_noise(rng, 256, 0.45 / mpp, 0.45 / mpp)
    return [_draw(rng, kind, mpp, chromatin) for _ in range(count)]


def _draw(
    rng: np.random.Generator, kind: NucleusKind, mpp: float, chromatin: NDArray[np.float32]
) -> NDArray[np.uint8]:
    diameter = kind.diameter_um * float(np.clip(rng.normal(1.0, kind.spread), 0.6, 1.7))
    stretch = np.sqrt(1.0 + (kind.elongation - 1.0) * rng.uniform(0.5, 1.5))
    long_px, short_px = diameter / 2 * stretch / mpp, diameter / 2 / stretch / mpp
    half = int(np.ceil(long_px * (1.0 + 2.0 * kind.irregularity))) + 1
    ys, xs = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32)
    shift_x, shift_y = rng.uniform(-0.5, 0.5, 2)
    angle = rng.uniform(-kind.turn, kind.turn)
    u = (xs - shift_x) * np.cos(angle) + (ys - shift_y) * np.sin(angle)
    v = -(xs - shift_x) * np.sin(angle) + (ys - shift_y) * np.cos(angle)
    phi = np.arctan2(v / short_px, u / long_px)
    outline = np.ones_like(phi)
    for wave in (2, 3, 5):
        outline += (
            kind.irregularity
            * 1.6
            / np.sqrt(wave)
            * rng.normal(0, 0.55)
            * np.cos(wave * phi + rng.uniform(0, 2 * np.pi))
        )
    radius = np.hypot(u / long_px, v / short_px) / outline
    # Distance to the outline in px; the edge is as soft as an objective leaves it (about 0.35 µm).
    distance = (1.0 - radius) * short_px
    soft = 0.5 + 0.3 / mpp
    inside = np.clip(distance / soft + 0.5, 0.0, 1.0)
    top, left = rng.integers(0, 256 - min(2 * half + 1, 255), 2)
    grain = chromatin[top : top + 2 * half + 1, left : left + 2 * half + 1]
    body = 1.0 + kind.clumps * grain
    body += kind.rim * np.exp(-((distance * mpp - 0.5) ** 2) / 0.35)
    body *= 1.0 - 0.5 * kind.rim  # a vesicular nucleus is pale between membrane and nucleolus
    if rng.uniform() < kind.nucleolus:
        at_u, at_v = rng.uniform(-0.35, 0.35, 2)
        spot = ((u / long_px - at_u) * long_px * mpp) ** 2 + ((v / short_px - at_v) * short_px * mpp) ** 2
        body += 0.55 * np.exp(-spot / (0.09 * kind.diameter_um) ** 2)
    density = kind.density * rng.normal(1.0, 0.10) * inside * body
    stamp: NDArray[np.uint8] = np.clip(density, 0, 250).astype(np.uint8)
    rows, columns = np.flatnonzero(stamp.any(axis=1)), np.flatnonzero(stamp.any(axis=0))
    return np.ascontiguousarray(stamp[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


#: Edge of the blocks in which the base is composed, and the largest tile of a slide, px.
BLOCK_PX = 512
_VARIANTS = 128
_PALETTE_STREAM = 0x50414C


@dataclass(frozen=True)
class Palette:
    """Textures and stamps of which slides of one resolution are composed.

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
    stamps = {name: draw_stamps(rng, kind, mpp, _VARIANTS) for name, kind in NUCLEUS_KINDS.items()}
    stamps["spindle_v"] = [np.ascontiguousarray(stamp.T) for stamp in stamps["spindle"]]
    noise = np.clip(np.rint(rng.normal(0.0, 0.8, (BLOCK_PX, BLOCK_PX, 3))), -3, 3).astype(np.int8)
    return Palette(mpp, atlas, stamps, noise)
