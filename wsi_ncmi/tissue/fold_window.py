"""The second look at a place that may be a fold, at about 2.7 µm per pixel.

At this resolution a bar is compared with its sides pixel by pixel: what reaches nearly half of the strongest
ridge nearby lies between the fold's two edges. A fold has the hue of the tissue on both its sides, so the
difference of hues is measured as well: it tells a layer of dense epithelium beside stroma.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wsi_ncmi.tissue.bars import DIRECTIONS, SIDE_UM, ridges
from wsi_ncmi.tissue.closer import CloserLook
from wsi_ncmi.tissue.colours import density

__all__ = ["FINE_UM", "WINDOW_MARGIN_UM", "FoldWindow", "Stain"]

FINE_UM = 2.67
"""Wished width of a pixel."""

_HALF_BAR_UM, _STEP_PX = 60.0, 3.0
_SMOOTH_UM, _NEAR_UM = 4.0, 22.0
WINDOW_MARGIN_UM = _HALF_BAR_UM + SIDE_UM + _NEAR_UM + 2 * _SMOOTH_UM
"""What has to be seen around a place to judge it."""

# Logarithm of the density over that of the denser side: at least this, and this share of the strongest near.
_LEAST, _HALF = 0.16, 0.45
_LEAST_DENSITY = 0.02


@dataclass(frozen=True)
class Stain:
    """How dense a slide's tissue is.

    Attributes:
        typical: Median of the density of green.
        dense: What a tenth of the tissue exceeds.
        gap: Share of the median below which there is no tissue to compare with; it counts as dense.
        palest: Share of the median that paler tissue counts as.
    """

    typical: float
    dense: float
    gap: float
    palest: float

    def solid(self, green: NDArray[np.float32], tissue: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Where there is tissue to compare with."""
        return tissue & (green > self.gap * self.typical)

    def level(self, green: NDArray[np.float32], tissue: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Logarithm of the density, float32 (h, w)."""
        known = np.where(self.solid(green, tissue), green, self.dense)
        level: NDArray[np.float32] = np.log(np.maximum(known, self.palest * self.typical)).astype(np.float32)
        return level


@dataclass(frozen=True, eq=False)  # arrays have no one truth value to compare by
class FoldWindow:
    """A window with its surroundings, read closer.

    Attributes:
        pixels: float32 (h · factor, w · factor, 3), of the window with its margin.
        rows: Rows of the overview that it shows, margin included.
        columns: The same of columns.
        core: Where the window itself lies in it, in pixels of the overview: rows and columns.
        factor: Finer pixels in one of the overview, along each side.
    """

    pixels: NDArray[np.float32]
    rows: slice
    columns: slice
    core: tuple[slice, slice]
    factor: int

    @classmethod
    def read(
        cls, closer: CloserLook, rows: slice, columns: slice, margin: int, shape: tuple[int, ...]
    ) -> FoldWindow:
        """Reads a window of the overview (of this shape) with so many of its pixels around.

        Raises:
            SlideReadError: It can't be read.
        """
        seen = tuple(
            slice(max(0, part.start - margin), min(side, part.stop + margin))
            for part, side in zip((rows, columns), shape, strict=True)
        )
        core = tuple(
            slice(part.start - whole.start, part.stop - whole.start)
            for part, whole in zip((rows, columns), seen, strict=True)
        )
        return cls(closer.read(seen[0], seen[1]), seen[0], seen[1], (core[0], core[1]), closer.factor)

    def folds(
        self,
        white: NDArray[np.float32],
        tissue: NDArray[np.bool_],
        maybe: NDArray[np.bool_],
        stain: Stain,
        pixel_um: tuple[float, float],
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Looks for folds in the window.

        Args:
            white: Colour of the glass, float32 (3,).
            tissue: The slide's tissue, of the overview's shape.
            maybe: Where the first look allows a fold.
            stain: How dense the tissue is.
            pixel_um: Width and height of the overview's pixels.

        Returns:
            float32 (h, w) each, of the window without its margin: the share of each pixel of the overview
            that looks like a fold; over that share the mean ridge, and the mean difference of hue (of the
            logarithm of red over green) from that side of the fold where it is larger.
        """
        fine_um = pixel_um[0] / self.factor, pixel_um[1] / self.factor
        sigma = _SMOOTH_UM / fine_um[1], _SMOOTH_UM / fine_um[0]
        levels = np.rint(self.pixels).astype(np.uint8)
        readable = np.ones(levels.shape[:2], np.bool_)
        red, green = (
            ndimage.gaussian_filter(density(levels[..., c], readable, float(white[c])), sigma) for c in (0, 1)
        )
        inside = self._finer(tissue)
        allowed = self._finer(maybe) & inside
        ridge, direction = ridges(stain.level(green, inside), fine_um, _HALF_BAR_UM, _STEP_PX)
        near = [2 * math.ceil(_NEAR_UM / um) + 1 for um in (fine_um[1], fine_um[0])]
        strongest = ndimage.maximum_filter(np.where(allowed, ridge, -1.0).astype(np.float32), near)
        fold = allowed & (ridge > np.maximum(_LEAST, _HALF * strongest))
        hue = np.log(np.maximum(red, _LEAST_DENSITY) / np.maximum(green, _LEAST_DENSITY))
        core = tuple(slice(part.start * self.factor, part.stop * self.factor) for part in self.core)
        outside = np.ones_like(fold)
        outside[core] = False
        fold &= ~outside
        other = _other_hue(fold, hue, stain.solid(green, inside), direction, fine_um)
        counts = self._sums(fold[core].astype(np.float32))
        strength, foreign = (
            (self._sums(np.where(fold, plane, 0.0)[core]) / np.maximum(counts, 1.0)).astype(np.float32)
            for plane in (ridge, other)
        )
        share: NDArray[np.float32] = counts / np.float32(self.factor**2)
        return share, strength, foreign

    def _finer(self, plane: NDArray[np.bool_]) -> NDArray[np.bool_]:
        part = plane[self.rows, self.columns]
        return part.repeat(self.factor, axis=0).repeat(self.factor, axis=1)

    def _sums(self, plane: NDArray[np.float32]) -> NDArray[np.float32]:
        height, width = plane.shape[0] // self.factor, plane.shape[1] // self.factor
        sums: NDArray[np.float32] = plane.reshape(height, self.factor, width, self.factor).sum(axis=(1, 3))
        return sums.astype(np.float32)


def _other_hue(
    fold: NDArray[np.bool_],
    hue: NDArray[np.float32],
    solid: NDArray[np.bool_],
    direction: NDArray[np.uint8],
    fine_um: tuple[float, float],
) -> NDArray[np.float32]:
    """How far the hue of each fold pixel's bar is from that of the bars beside it: float32, 0 elsewhere."""
    y, x = np.nonzero(fold)
    angle = direction[y, x] * (math.pi / DIRECTIONS)
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    steps = max(2, round(_HALF_BAR_UM / min(fine_um) / _STEP_PX))
    along = np.linspace(-_HALF_BAR_UM, _HALF_BAR_UM, 2 * steps + 1)[None, :]

    def mean(side: float) -> NDArray[np.float64]:
        columns = np.rint(x[:, None] + (along * cos - side * sin) / fine_um[0]).astype(np.int64)
        rows = np.rint(y[:, None] + (along * sin + side * cos) / fine_um[1]).astype(np.int64)
        rows, columns = rows.clip(0, hue.shape[0] - 1), columns.clip(0, hue.shape[1] - 1)
        known = solid[rows, columns]
        total: NDArray[np.float64] = (hue[rows, columns] * known).sum(axis=1)
        means: NDArray[np.float64] = total / np.maximum(known.sum(axis=1), 1)
        return means

    middle = mean(0.0)
    other = np.zeros(fold.shape, np.float32)
    other[y, x] = np.maximum(np.abs(middle - mean(SIDE_UM)), np.abs(middle - mean(-SIDE_UM)))
    return other
