"""The second look at a place that may be a fold, at about 2.7 µm per pixel.

At this resolution a bar is compared with its sides pixel by pixel: what reaches nearly half of the strongest
ridge nearby lies between the fold's two edges. A fold has the hue of the tissue on both its sides, so the
difference of hues is measured as well (``fold_hue``): it tells a layer of dense epithelium beside stroma.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.tissue.bars import LEVEL_STEPS, MOST_LEVEL, SIDE_UM, ridges
from wsi_ncmi.tissue.closer import CloserLook
from wsi_ncmi.tissue.colours import density, smooth
from wsi_ncmi.tissue.fold_hue import other_hue

__all__ = ["FINE_UM", "WINDOW_MARGIN_UM", "FoldWindow", "Stain"]

FINE_UM = 2.67
"""Wished width of a pixel."""

_HALF_BAR_UM, _STEP_PX = 60.0, 3.0
# With the filter of the closer look, a Gaussian of 4 µm.
_SMOOTH_UM, _NEAR_UM = 3.88, 22.0
WINDOW_MARGIN_UM = _HALF_BAR_UM + SIDE_UM + _NEAR_UM + 2 * _SMOOTH_UM
"""What has to be seen around a place to judge it."""

# Logarithm of the density over that of the denser side: at least this, and this share of the strongest near.
_LEAST, _HALF = 0.158, 0.45


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

    def level(self, green: NDArray[np.float32], solid: NDArray[np.bool_]) -> NDArray[np.int16]:
        """Logarithm of the density over the palest that counts, int16 (h, w) as ``ridges`` wants it.

        Args:
            green: Density of green.
            solid: Where there is tissue to compare with.
        """
        palest = np.float32(self.palest * self.typical)
        known = np.where(solid, green, np.float32(self.dense))
        np.maximum(known, palest, out=known)
        known /= palest
        np.log(known, out=known)
        known *= np.float32(LEVEL_STEPS)
        np.minimum(known, np.float32(MOST_LEVEL), out=known)
        return known.astype(np.int16)


@dataclass(frozen=True, eq=False)  # arrays have no one truth value to compare by
class FoldWindow:
    """A window with its surroundings, read closer.

    Attributes:
        pixels: uint8 (h · factor, w · factor, 3), of the window with its margin.
        rows: Rows of the overview that it shows, margin included.
        columns: The same of columns.
        core: Where the window itself lies in it, in pixels of the overview: rows and columns.
        factor: Finer pixels in one of the overview, along each side.
    """

    pixels: NDArray[np.uint8]
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
        red, green = (smooth(density(self.pixels[..., c], None, float(white[c])), sigma) for c in (0, 1))
        inside = self._finer(tissue)
        solid = stain.solid(green, inside)
        # Ridges count where the window is, and as far around as a stronger one would matter.
        near = [math.ceil(_NEAR_UM / um) for um in (fine_um[1], fine_um[0])]
        core = tuple(slice(part.start * self.factor, part.stop * self.factor) for part in self.core)
        asked = tuple(
            slice(max(0, part.start - far), min(side, part.stop + far))
            for part, far, side in zip(core, near, inside.shape, strict=True)
        )
        allowed = (self._finer(maybe) & inside)[asked]
        level = stain.level(green, solid)
        ridge, direction = ridges(level, fine_um, _HALF_BAR_UM, _STEP_PX, (asked[0], asked[1]))
        strongest = _highest_near(np.where(allowed, ridge, np.float32(-1.0)), near)
        fold = allowed & (ridge > np.maximum(np.float32(_LEAST), np.float32(_HALF) * strongest))
        # Places in the window, without the margin of the ridges.
        offset = tuple(part.start - whole.start for part, whole in zip(core, asked, strict=True))
        size = tuple(part.stop - part.start for part in core)
        y, x = np.nonzero(fold[offset[0] : offset[0] + size[0], offset[1] : offset[1] + size[1]])
        at = y + offset[0], x + offset[1]
        foreign = other_hue(
            red, green, solid, (y + core[0].start, x + core[1].start), direction[at], fine_um, _HALF_BAR_UM,
            max(2, round(_HALF_BAR_UM / min(fine_um) / _STEP_PX)),
        )  # fmt: skip
        shape = size[0] // self.factor, size[1] // self.factor
        cell = (y // self.factor) * shape[1] + x // self.factor
        counts = np.bincount(cell, minlength=shape[0] * shape[1])
        strength, hue = (
            (np.bincount(cell, values, counts.size) / np.maximum(counts, 1)).astype(np.float32).reshape(shape)
            for values in (ridge[at], foreign)
        )
        share = (counts / self.factor**2).astype(np.float32).reshape(shape)
        return share, strength, hue

    def _finer(self, plane: NDArray[np.bool_]) -> NDArray[np.bool_]:
        part = plane[self.rows, self.columns]
        return part.repeat(self.factor, axis=0).repeat(self.factor, axis=1)


def _highest_near(plane: NDArray[np.float32], near: list[int]) -> NDArray[np.float32]:
    """The highest value within so many pixels up and down, left and right; outside there is none."""
    result = np.pad(plane, [(far, far) for far in near], constant_values=-1.0)
    for axis, far in enumerate(near):
        result = result.swapaxes(0, axis)
        reach, wanted = 1, 2 * far + 1  # values that each place stands for, and that it should
        while reach < wanted:
            step = min(reach, wanted - reach)
            result = np.maximum(result[:-step], result[step:])
            reach += step
        result = result.swapaxes(0, axis)
    return result
