"""Size and scale of a slide, and how large it must be for its tissue."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Frame", "frame_for_tissue"]

_CELL_UM = 4.0
_MARGIN_MM = 0.11
_GAP_MM = 0.10


@dataclass(frozen=True)
class Frame:
    """Size and scale of a slide.

    Attributes:
        width_px: Level-0 width.
        height_px: Level-0 height.
        mpp: Microns per level-0 pixel.
        pieces: Ellipses (centre x, centre y, semi-axis x, semi-axis y) in mm around which tissue grows.
    """

    width_px: int
    height_px: int
    mpp: float
    pieces: tuple[tuple[float, float, float, float], ...]

    @property
    def cell_px(self) -> int:
        """Edge of a coarse cell in level-0 px."""
        return max(1, round(_CELL_UM / self.mpp))

    @property
    def cell_um(self) -> float:
        """Edge of a coarse cell in µm."""
        return self.cell_px * self.mpp

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the coarse grid, which covers the whole slide."""
        return -(-self.height_px // self.cell_px), -(-self.width_px // self.cell_px)


def frame_for_tissue(rng: np.random.Generator, mpp: float, tissue_mm2: float) -> Frame:
    """Chooses one or two pieces of tissue with this total area and the smallest slide around them."""
    shares = (1.0,) if rng.uniform() < 0.65 else (0.6, 0.4)
    aspect = float(rng.uniform(1.15, 1.5)) if len(shares) == 1 else float(rng.uniform(1.15, 1.4))
    sizes = []
    for share in shares:
        short = np.sqrt(tissue_mm2 * share / np.pi / aspect)
        # Two pieces stand upright side by side, one lies.
        sizes.append((short * aspect, short) if len(shares) == 1 else (short, short * aspect))
    margin = _MARGIN_MM
    height_mm = 2 * max(b for _, b in sizes) + 2 * margin
    pieces, x = [], margin
    for a, b in sizes:
        slack = height_mm / 2 - margin - b
        pieces.append((float(x + a), float(height_mm / 2 + rng.uniform(-slack, slack)), float(a), float(b)))
        x += 2 * a + _GAP_MM
    width_mm = x - _GAP_MM + margin
    return Frame(round(width_mm * 1000 / mpp), round(height_mm * 1000 / mpp), mpp, tuple(pieces))
