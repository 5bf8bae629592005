"""Microns per pixel of level 0, with where the number came from."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Mpp"]


@dataclass(frozen=True)
class Mpp:
    """Resolution of level 0.

    Attributes:
        x: Microns per level-0 pixel along x.
        y: Microns per level-0 pixel along y (some scanners are anisotropic; neither is averaged away).
        source: Where the numbers came from: ``table``, ``vendor``, ``tiff``, ``objective`` or ``default``.
    """

    x: float
    y: float
    source: str

    def __post_init__(self) -> None:
        if not (math.isfinite(self.x) and math.isfinite(self.y) and self.x > 0 and self.y > 0):
            raise ValueError(f"Microns per pixel must be positive and finite, not {self.x} × {self.y}.")

    @property
    def mean(self) -> float:
        """Geometric mean of both axes: the side in µm of a square of one pixel's area."""
        return math.sqrt(self.x * self.y)
