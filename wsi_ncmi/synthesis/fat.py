"""Fat cells: round holes in the tissue, in one or two clusters beneath the capsule."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.synthesis.frame import Frame

__all__ = ["Vacuole", "distance_to_fat", "draw_fat"]

FloatMap = NDArray[np.float32]


@dataclass(frozen=True)
class Vacuole:
    """One fat cell: a round hole in the tissue (level-0 px)."""

    x: float
    y: float
    radius: float


def draw_fat(
    rng: np.random.Generator, frame: Frame, depth_um: FloatMap, lesion: NDArray[np.bool_]
) -> tuple[Vacuole, ...]:
    """Fat cells in one or two clusters, together at most about 2.5 % of the tissue."""
    free = (depth_um > 30.0) & (depth_um < 260.0) & ~lesion
    candidates = np.argwhere(free)
    if len(candidates) < 200:
        return ()
    budget = 0.025 * float((depth_um > 0).sum()) * frame.cell_um**2 * rng.uniform(0.2, 1.0)
    seeds = candidates[rng.integers(len(candidates), size=int(rng.integers(1, 3)))]
    placed: list[tuple[float, float, float]] = []
    for _ in range(400):
        seed = seeds[rng.integers(len(seeds))] * frame.cell_um
        y, x = seed + rng.normal(0, 90.0, 2)
        radius = float(rng.uniform(13.0, 30.0))
        row, column = int(y / frame.cell_um), int(x / frame.cell_um)
        if not (0 <= row < frame.shape[0] and 0 <= column < frame.shape[1]):
            continue
        if lesion[row, column] or depth_um[row, column] < radius + 12.0:
            continue
        if all(np.hypot(y - v, x - u) > radius + r + 3.0 for u, v, r in placed):
            placed.append((float(x), float(y), radius))
            budget -= np.pi * radius**2
            if budget < 0:
                break
    return tuple(Vacuole(x / frame.mpp, y / frame.mpp, r / frame.mpp) for x, y, r in placed)


def distance_to_fat(frame: Frame, vacuoles: tuple[Vacuole, ...]) -> FloatMap:
    """Distance from the edge of the nearest fat cell in µm (negative inside); 99 far away."""
    distance = np.full(frame.shape, 99.0, dtype=np.float32)
    for fat in vacuoles:
        reach = fat.radius + 12.0 / frame.mpp
        rows = slice(max(int((fat.y - reach) / frame.cell_px), 0), int((fat.y + reach) / frame.cell_px) + 2)
        columns = slice(
            max(int((fat.x - reach) / frame.cell_px), 0), int((fat.x + reach) / frame.cell_px) + 2
        )
        part = distance[rows, columns]
        y = (np.arange(part.shape[0])[:, None] + rows.start + 0.5) * frame.cell_px - fat.y
        x = (np.arange(part.shape[1])[None, :] + columns.start + 0.5) * frame.cell_px - fat.x
        np.minimum(part, (np.hypot(x, y) - fat.radius) * frame.mpp, out=part)
    return distance
