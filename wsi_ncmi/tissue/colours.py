"""A slide's overview as smoothed optical densities: one of green, and the ratios of red and blue to it.

Tissue, ink, folds and borders are told apart by these three planes alone. They are made strip
by strip: float planes of a whole large slide (22 Mpx) would take 90 MB each.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.slides import Overview

__all__ = ["RATIO_STEP", "Colours", "glass_colour", "smooth_colours", "strips"]

RATIO_STEP = 0.01
"""Ratio of densities of one step of a ratio plane."""

# No scanner's glass is darker; a slide without any glass gets this as its white at least.
_DARKEST_GLASS = 200
_GLASS_PERCENTILE = 98.0
_STRIP_PX = 1 << 19
_TRUNCATE = 4.0
# Below this density a ratio is that of two noises.
_MIN_DENSITY = 0.02


@dataclass(frozen=True, eq=False)  # arrays have no one truth value to compare by
class Colours:
    """Smoothed optical densities relative to the slide's glass.

    Attributes:
        green: Density of green, float16 (h, w).
        red_ratio: Density of red over that of green, uint8 (h, w) in steps of ``RATIO_STEP``, up to 2.55.
        blue_ratio: The same of blue.
        brightest: Largest of R, G and B before smoothing, uint8 (h, w).
        white: Colour of the glass, float32 (3,).
    """

    green: NDArray[np.float16]
    red_ratio: NDArray[np.uint8]
    blue_ratio: NDArray[np.uint8]
    brightest: NDArray[np.uint8]
    white: NDArray[np.float32]


def strips(shape: tuple[int, ...], halo: int = 0) -> Iterator[tuple[slice, slice, slice]]:
    """Parts a picture in strips with a halo.

    Yields:
        Rows of the strip, rows with the halo, and the place of the strip within those.
    """
    height, width = shape
    rows = max(1, _STRIP_PX // max(width, 1))
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        first, last = max(0, top - halo), min(height, bottom + halo)
        yield slice(top, bottom), slice(first, last), slice(top - first, bottom - first)


def glass_colour(overview: Overview) -> NDArray[np.float32]:
    """The colour of empty glass, float32 (3,): the brightest thing on a slide.

    On a slide without glass something near white is assumed.
    """
    white = np.full(3, 255.0, np.float32)
    for channel in range(3):
        counts = np.zeros(256, np.int64)
        for rows, _, _ in strips(overview.readable.shape):
            counts += grey_counts(overview.pixels[rows], channel, overview.readable[rows])
        total = counts.cumsum()
        if total[-1]:
            white[channel] = np.searchsorted(total, total[-1] * _GLASS_PERCENTILE / 100.0)
    return np.maximum(white, _DARKEST_GLASS)


def grey_counts(pixels: NDArray[np.uint8], channel: int, counted: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Pixels of each grey level of a channel, int64 (256,); of a strip, for ``cv2`` counts in float32."""
    part = cv2.calcHist([pixels], [channel], counted.view(np.uint8), [256], [0, 256])
    return part.ravel().astype(np.int64)


def smooth_colours(overview: Overview, white: NDArray[np.float32], sigma: tuple[float, float]) -> Colours:
    """Densities of a slide, smoothed.

    Args:
        overview: The overview; unreadable places count as glass.
        white: Colour of the glass.
        sigma: Of the Gaussian, in pixels down and across.
    """
    height, width = overview.readable.shape
    green = np.empty((height, width), np.float16)
    red_ratio, blue_ratio = np.empty((height, width), np.uint8), np.empty((height, width), np.uint8)
    brightest = np.empty((height, width), np.uint8)
    halo = int(_TRUNCATE * sigma[0] + 0.5)
    for rows, padded, inner in strips((height, width), halo):
        pixels, readable = overview.pixels[padded], overview.readable[padded]
        brightest[rows] = pixels[inner].max(axis=2)
        planes = density(pixels, readable, white)
        red, middle, blue = (smooth(plane, sigma)[inner] for plane in planes)
        green[rows] = middle
        reference = np.maximum(middle, _MIN_DENSITY)
        for target, plane in ((red_ratio, red), (blue_ratio, blue)):
            target[rows] = np.minimum(plane / reference * (1.0 / RATIO_STEP) + 0.5, 255.0).astype(np.uint8)
    return Colours(green, red_ratio, blue_ratio, brightest, white)


def density(
    pixels: NDArray[np.uint8], readable: NDArray[np.bool_] | None, white: NDArray[np.float32]
) -> list[NDArray[np.float32]]:
    """Optical density of each channel through a table, float32 (h, w) each; 0 where it can't be read."""
    whites = white.astype(np.float64)
    table = np.maximum(-np.log10((np.arange(256)[:, None] + 1.0) / (whites + 1.0)), 0.0).astype(np.float32)
    dense = cv2.LUT(pixels, table[None])
    if readable is not None and not readable.all():
        dense[~readable] = 0.0
    return [np.asarray(plane, np.float32) for plane in cv2.split(dense)]


def smooth(plane: NDArray[np.float32], sigma: tuple[float, float]) -> NDArray[np.float32]:
    """A Gaussian of ``sigma`` pixels down and across; the plane is mirrored beyond its edges.

    As whole shifted planes in float32 it takes half the time of ``scipy.ndimage.gaussian_filter``, which
    computes in float64.
    """
    for axis, width in enumerate(sigma):
        if width == 0.0:
            continue
        reach = int(_TRUNCATE * width + 0.5)
        weights = np.exp(-0.5 * (np.arange(reach + 1) / width) ** 2)
        weights = (weights / (2.0 * weights.sum() - weights[0])).astype(np.float32)
        size, (down, across) = plane.shape[axis], ((reach, 0), (0, reach))[axis]
        padded = cv2.copyMakeBorder(plane, down, down, across, across, cv2.BORDER_REFLECT).swapaxes(0, axis)
        shifted = [padded[by : by + size] for by in range(2 * reach + 1)]
        total = shifted[reach] * weights[0]
        both = np.empty_like(total)
        for by in range(1, reach + 1):
            np.add(shifted[reach - by], shifted[reach + by], out=both)
            both *= weights[by]
            total += both
        plane = total.swapaxes(0, axis)
    return plane
