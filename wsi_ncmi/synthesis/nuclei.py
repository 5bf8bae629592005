"""Nuclei as small stamps of haematoxylin density, one set a kind and scanner resolution.

A stamp is drawn once at the scanner's microns per pixel and pasted thousands of times; nuclei are thereby
whole wherever they lie, and every slide has its own arrangement.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.synthesis.noise import periodic_noise

__all__ = ["KINDS", "NucleusKind", "draw_stamps"]


@dataclass(frozen=True)
class NucleusKind:
    """How one kind of nucleus looks.

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


KINDS = {
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
