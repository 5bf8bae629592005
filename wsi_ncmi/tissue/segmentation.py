"""Telling tissue from glass at a stated working resolution."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wsi_ncmi.slides import Mpp, Overview, Slide, read_overview
from wsi_ncmi.tissue.mask import TissueMask
from wsi_ncmi.tissue.options import TissueOptions

__all__ = ["segment_tissue"]

# Less than this share of the slide counts as "next to nothing" and gets a second, looser try.
_NEXT_TO_NOTHING = 0.0005
_LOOSER = 0.6
# Otsu's threshold may split pale from dark tissue; above these values it's no border of glass any more.
_HIGHEST_DENSITY = 0.15
_HIGHEST_SATURATION = 0.15
# Camera noise and JPEG give empty glass a saturation of up to about 0.03.
_LOWEST_SATURATION = 0.04


def segment_tissue(slide: Slide, mpp: Mpp, options: TissueOptions) -> TissueMask:
    """Finds the tissue of a slide.

    Where next to nothing is found the threshold is loosened once, and the mask's note says so. Areas that
    can't be read count as tissue, so that their tiles end as failed reads in the ledger and not as glass.

    Args:
        slide: An open slide.
        mpp: Its resolution.
        options: Method and limits.

    Returns:
        The mask, at most as coarse as ``working_mpp``.

    Raises:
        SlideReadError: Nothing of the slide can be read.
    """
    width = min(slide.width_px, math.ceil(slide.width_px * mpp.x / options.working_mpp))
    height = min(slide.height_px, math.ceil(slide.height_px * mpp.y / options.working_mpp))
    overview = read_overview(slide, width, height)
    pixel_um = (overview.downsample_x * mpp.x * overview.downsample_y * mpp.y) ** 0.5
    signal, eligible = _signal(overview, options, pixel_um)
    threshold = _threshold(signal, options)
    note = ""
    mask = _clean(signal > threshold, eligible, pixel_um, options)
    if mask.mean() < _NEXT_TO_NOTHING:
        looser = _clean(signal > threshold * _LOOSER, eligible, pixel_um, options)
        if looser.sum() > mask.sum():
            threshold, mask = threshold * _LOOSER, looser
            note = "next to no tissue was found, the threshold was loosened"
    mask |= ~overview.readable
    return TissueMask(
        mask=mask,
        downsample_x=overview.downsample_x,
        downsample_y=overview.downsample_y,
        method=options.method,
        parameters={**asdict(options), "threshold_used": round(float(threshold), 6), "loosened": bool(note)},
        note=note,
    )


def _signal(
    overview: Overview, options: TissueOptions, pixel_um: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    sigma = options.smooth_um / pixel_um
    pixels = overview.pixels.astype(np.float32)
    if options.method == "hed":
        density = _optical_density(pixels)
        smooth = ndimage.gaussian_filter(density, (sigma, sigma, 0)) if sigma > 0 else density
        red, green, blue = np.moveaxis(smooth, 2, 0)
        # Haematoxylin and eosin absorb green most. Blue ink absorbs red more, green ink absorbs green
        # least, black ink absorbs all alike.
        stained = (green >= 0.9 * red) & (blue <= 0.92 * green)
        return green, stained
    top, bottom = pixels.max(axis=2), pixels.min(axis=2)
    saturation = (top - bottom) / np.maximum(top, 1.0)
    smooth = ndimage.gaussian_filter(saturation, sigma) if sigma > 0 else saturation
    return smooth, np.ones(smooth.shape, np.bool_)


def _optical_density(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    # The glass is the brightest thing on a slide; on one without glass, white is assumed.
    white = np.percentile(pixels[:: max(1, pixels.shape[0] // 512)], 98, axis=(0, 1))
    white = np.maximum(white, 200.0).astype(np.float32)
    density: NDArray[np.float32] = -np.log10((pixels + 1.0) / (white + 1.0))
    return np.maximum(density, 0.0)


def _threshold(signal: NDArray[np.float32], options: TissueOptions) -> float:
    if options.method == "threshold":
        return options.threshold
    from skimage.filters import threshold_otsu

    found = 0.0
    if signal.min() < signal.max():
        found = float(threshold_otsu(signal))  # type: ignore[no-untyped-call]
    if options.method == "hed":
        return float(np.clip(found, options.min_density, _HIGHEST_DENSITY))
    return float(np.clip(found, _LOWEST_SATURATION, _HIGHEST_SATURATION))


def _clean(
    mask: NDArray[np.bool_], eligible: NDArray[np.bool_], pixel_um: float, options: TissueOptions
) -> NDArray[np.bool_]:
    pixel_um2 = pixel_um**2
    tissue = _without_small(mask & eligible, options.min_object_um2 / pixel_um2)
    return ~_without_small(~tissue, options.min_hole_um2 / pixel_um2)


def _without_small(mask: NDArray[np.bool_], least_px: float) -> NDArray[np.bool_]:
    labels, found = ndimage.label(mask)
    if not found:
        return mask
    keep = np.bincount(labels.ravel()) >= least_px
    keep[0] = False
    kept: NDArray[np.bool_] = keep[labels]
    return kept
