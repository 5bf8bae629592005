"""The second pass of the fold detector: one window at about 2.7 µm per pixel.

At this resolution a bar is compared with its sides pixel by pixel: what reaches nearly half of the strongest
ridge nearby lies between the fold's two edges. A fold has the hue of the tissue on both its sides, so the
difference of hues is measured as well (``bar_contrasts``): it is large for a layer of dense epithelium beside
stroma.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.tissue.colours import density, smooth
from wsi_ncmi.tissue.high_res_reader import HighResReader
from wsi_ncmi.tissue.ridge_filter import DIRECTIONS, LEVEL_STEPS, MAX_LEVEL, SIDE_UM, ridge_filter

_MIN_DENSITY = 0.02
# Two values of a pixel in steps and, in the highest bits, a one where it counts: all are added up at once.
_STEPS, _SHIFT, _VALUE_BITS = 4096, 5.0, 24


def bar_contrasts(
    red: NDArray[np.float32],
    green: NDArray[np.float32],
    solid: NDArray[np.bool_],
    places: tuple[NDArray[np.int64], NDArray[np.int64]],
    direction: NDArray[np.uint8],
    pixel_um: tuple[float, float],
    half_bar_um: float,
    steps: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Contrasts of bars with the bars beside them: of hue, and of these with each other in density.

    Hue is the logarithm of the density of red over that of green, the mean over the samples that count.

    Args:
        red: Smoothed density of red, float32 (h, w); its edge values continue beyond the edges.
        green: The same of green.
        solid: Mask of tissue to compare with; other samples don't count.
        places: Rows and columns of the bars' middles, int64 (n,) each.
        direction: Number of the direction of each, uint8 (n,), as ``ridge_filter`` gives it.
        pixel_um: Width and height of a pixel.
        half_bar_um: Half the length of the bars.
        steps: Samples on either side of the middle, at most 31.

    Returns:
        float64 (n,) each: the distance of the hue from that at the side where it is larger; the difference of
        the logarithms of the density of both sides, 0 where one has no tissue.
    """
    level = np.maximum(green, np.float32(_MIN_DENSITY))
    hue = np.maximum(red, np.float32(_MIN_DENSITY))
    hue /= level
    (hues, levels), counts = _bar_means(
        (np.log(hue, out=hue), np.log(level, out=level)),
        solid,
        places,
        direction,
        pixel_um,
        half_bar_um,
        steps,
    )
    hue_contrast = np.maximum(np.abs(hues[0] - hues[1]), np.abs(hues[0] - hues[2]))
    return hue_contrast, np.abs(levels[1] - levels[2]) * (counts[1:].min(axis=0) > 0)


def _bar_means(
    planes: tuple[NDArray[np.float32], NDArray[np.float32]],
    solid: NDArray[np.bool_],
    places: tuple[NDArray[np.int64], NDArray[np.int64]],
    direction: NDArray[np.uint8],
    pixel_um: tuple[float, float],
    half_bar_um: float,
    steps: int,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Means of two planes along bars and along those beside them, over the samples that count.

    The planes are within ±5, and changed. Gives float64 (2, 3, n), of each plane the bars' own and those of
    either side, 0 without a sample; and the samples that count, int64 (3, n).
    """
    packed = np.full(solid.shape, 1 << (2 * _VALUE_BITS), np.int64)
    for number, values in enumerate(planes):
        values += np.float32(_SHIFT)
        values *= np.float32(_STEPS)
        np.clip(values, 0.0, 2 * _SHIFT * _STEPS, out=values)
        packed += values.astype(np.int64) << (number * _VALUE_BITS)
    packed *= solid
    margin = math.ceil((half_bar_um + SIDE_UM) / min(pixel_um)) + 1
    plane = np.pad(packed, margin, mode="edge")
    across, flat = plane.shape[1], plane.reshape(-1)
    middle = (places[0] + margin) * across + places[1] + margin
    along = np.linspace(-half_bar_um, half_bar_um, 2 * steps + 1)
    means, counts = np.zeros((2, 3, len(middle))), np.zeros((3, len(middle)), np.int64)
    for number in range(DIRECTIONS):
        chosen = np.flatnonzero(direction == number)
        if not len(chosen):
            continue
        cos, sin = math.cos(number * math.pi / DIRECTIONS), math.sin(number * math.pi / DIRECTIONS)
        for row, side in enumerate((0.0, SIDE_UM, -SIDE_UM)):
            dx = np.rint((along * cos - side * sin) / pixel_um[0]).astype(np.int64)
            dy = np.rint((along * sin + side * cos) / pixel_um[1]).astype(np.int64)
            total = np.zeros(len(chosen), np.int64)
            # From the first place on that any bar may touch, so that places stay positive.
            first = margin * (across + 1)
            near = middle[chosen] - first
            for offset in (dy * across + dx + first).tolist():
                total += flat[offset:].take(near)
            count = total >> (2 * _VALUE_BITS)
            for which in range(2):
                summed = (total >> (which * _VALUE_BITS)) & ((1 << _VALUE_BITS) - 1)
                means[which, row, chosen] = (summed / _STEPS - _SHIFT * count) / np.maximum(count, 1)
            counts[row, chosen] = count
    return means, counts


FINE_UM = 2.67
"""Target width of a pixel, µm."""

_HALF_BAR_UM, _STEP_PX = 60.0, 3.0
# With the filter of the second pass, a Gaussian of 4 µm.
_SMOOTH_UM, _NEAR_UM = 3.88, 22.0
WINDOW_MARGIN_UM = _HALF_BAR_UM + SIDE_UM + _NEAR_UM + 2 * _SMOOTH_UM
"""Margin in µm around a place that is needed to judge it."""

# Logarithm of the density over that of the denser side: at least this, and this share of the strongest near.
_MIN_RIDGE, _HALF = 0.158, 0.45


@dataclass(frozen=True)
class Stain:
    """Density of a slide's tissue.

    Attributes:
        typical: Median of the density of green.
        dense: Density that a tenth of the tissue exceeds.
        gap: Share of the median below which there is no tissue to compare with; it counts as dense.
        palest: Share of the median that paler tissue counts as.
    """

    typical: float
    dense: float
    gap: float
    palest: float

    def solid(self, green: NDArray[np.float32], tissue: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Mask of the tissue to compare with."""
        return tissue & (green > self.gap * self.typical)

    def level(self, green: NDArray[np.float32], solid: NDArray[np.bool_]) -> NDArray[np.int16]:
        """Logarithm of the density over the palest that counts, int16 (h, w) as ``ridge_filter`` wants it.

        Args:
            green: Density of green.
            solid: Mask of tissue to compare with.
        """
        palest = np.float32(self.palest * self.typical)
        known = np.where(solid, green, np.float32(self.dense))
        np.maximum(known, palest, out=known)
        known /= palest
        np.log(known, out=known)
        known *= np.float32(LEVEL_STEPS)
        np.minimum(known, np.float32(MAX_LEVEL), out=known)
        return known.astype(np.int16)


@dataclass(frozen=True, eq=False)  # arrays have no one truth value to compare by
class FoldWindow:
    """A window with its surroundings, read at high resolution.

    Attributes:
        pixels: uint8 (h · factor, w · factor, 3), of the window with its margin.
        rows: Rows of the overview that it shows, margin included.
        columns: The same of columns.
        core: Place of the window itself in it, in pixels of the overview: rows and columns.
        factor: Finer pixels in one of the overview, along each side.
    """

    pixels: NDArray[np.uint8]
    rows: slice
    columns: slice
    core: tuple[slice, slice]
    factor: int

    @classmethod
    def read(
        cls, high_res: HighResReader, rows: slice, columns: slice, margin: int, shape: tuple[int, ...]
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
        return cls(high_res.read(seen[0], seen[1]), seen[0], seen[1], (core[0], core[1]), high_res.factor)

    def folds(
        self,
        white: NDArray[np.float32],
        tissue: NDArray[np.bool_],
        maybe: NDArray[np.bool_],
        stain: Stain,
        pixel_um: tuple[float, float],
    ) -> tuple[NDArray[np.float32], ...]:
        """Finds folds in the window.

        Args:
            white: Colour of the glass, float32 (3,).
            tissue: The slide's tissue, of the overview's shape.
            maybe: Mask of places where the first pass allows a fold.
            stain: Density of the tissue.
            pixel_um: Width and height of the overview's pixels.

        Returns:
            float32 (h, w) each, of the window without its margin: the share of each pixel of the overview
            that is taken for a fold; over that share the mean ridge, the mean difference of hue (of the
            logarithm of red over green) from that side of the fold where it is larger, and the mean
            difference of the two sides' densities (of the logarithm).
        """
        fine_um = pixel_um[0] / self.factor, pixel_um[1] / self.factor
        sigma = _SMOOTH_UM / fine_um[1], _SMOOTH_UM / fine_um[0]
        planes = density(self.pixels, None, white)
        red, green = smooth(planes[0], sigma), smooth(planes[1], sigma)
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
        ridge, direction = ridge_filter(level, fine_um, _HALF_BAR_UM, _STEP_PX, (asked[0], asked[1]))
        strongest = _highest_near(np.where(allowed, ridge, np.float32(-1.0)), near)
        fold = allowed & (ridge > np.maximum(np.float32(_MIN_RIDGE), np.float32(_HALF) * strongest))
        # Places in the window, without the margin of the ridges.
        offset = tuple(part.start - whole.start for part, whole in zip(core, asked, strict=True))
        size = tuple(part.stop - part.start for part in core)
        y, x = np.nonzero(fold[offset[0] : offset[0] + size[0], offset[1] : offset[1] + size[1]])
        at = y + offset[0], x + offset[1]
        bars = (
            solid, (y + core[0].start, x + core[1].start), direction[at], fine_um, _HALF_BAR_UM,
            max(2, round(_HALF_BAR_UM / min(fine_um) / _STEP_PX)),
        )  # fmt: skip
        measured = ridge[at], *bar_contrasts(red, green, *bars)
        shape = size[0] // self.factor, size[1] // self.factor
        cell = (y // self.factor) * shape[1] + x // self.factor
        counts = np.bincount(cell, minlength=shape[0] * shape[1])
        means = (
            (np.bincount(cell, values, counts.size) / np.maximum(counts, 1)).astype(np.float32).reshape(shape)
            for values in measured
        )
        share = (counts / self.factor**2).astype(np.float32).reshape(shape)
        return share, *means

    def _finer(self, plane: NDArray[np.bool_]) -> NDArray[np.bool_]:
        part = plane[self.rows, self.columns]
        return part.repeat(self.factor, axis=0).repeat(self.factor, axis=1)


def _highest_near(plane: NDArray[np.float32], near: list[int]) -> NDArray[np.float32]:
    """The highest value within so many pixels up and down, left and right; outside there is none."""
    result = np.pad(plane, [(far, far) for far in near], constant_values=-1.0)
    for axis, far in enumerate(near):
        result = result.swapaxes(0, axis)
        reach, target = 1, 2 * far + 1  # values that each place covers, and that it should
        while reach < target:
            step = min(reach, target - reach)
            result = np.maximum(result[:-step], result[step:])
            reach += step
        result = result.swapaxes(0, axis)
    return result
