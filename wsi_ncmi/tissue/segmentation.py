"""Telling tissue from glass at a stated working resolution."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.slides import Mpp, Overview, Slide, read_overview
from wsi_ncmi.tissue.colours import Colours, glass_colour, smooth_colours, strips
from wsi_ncmi.tissue.config import TissueConfig
from wsi_ncmi.tissue.mask import TissueMask
from wsi_ncmi.tissue.runs import without_small
from wsi_ncmi.tissue.signals import HIGHEST_DENSITY, HIGHEST_SATURATION, LOWEST_SATURATION, tissue_signal

__all__ = ["find_tissue", "segment_tissue", "slide_overview"]

# Less than this share of the slide counts as "next to nothing" and gets a second, looser try.
_NEXT_TO_NOTHING = 0.0005
_LOOSER = 0.6
_BINS = 1024


def segment_tissue(slide: Slide, mpp: Mpp, options: TissueConfig) -> TissueMask:
    """Finds the tissue of a slide.

    Where next to nothing is found the threshold is loosened once. Areas that can't be read count as tissue,
    so that their tiles end as failed reads in the ledger and not as glass. The mask's note says either.

    Args:
        slide: An open slide.
        mpp: Its resolution.
        options: Method and limits.

    Returns:
        The mask, at most as coarse as ``working_mpp``.

    Raises:
        SlideReadError: Nothing of the slide can be read.
    """
    return find_tissue(slide_overview(slide, mpp, options), mpp, options)[0]


def slide_overview(slide: Slide, mpp: Mpp, options: TissueConfig) -> Overview:
    """The slide at the working resolution, or at its own where that is coarser.

    Raises:
        SlideReadError: Nothing of the slide can be read.
    """
    width = min(slide.width_px, math.ceil(slide.width_px * mpp.x / options.working_mpp))
    height = min(slide.height_px, math.ceil(slide.height_px * mpp.y / options.working_mpp))
    return read_overview(slide, width, height)


def find_tissue(overview: Overview, mpp: Mpp, options: TissueConfig) -> tuple[TissueMask, Colours]:
    """Finds the tissue on a slide in small.

    Args:
        overview: The slide in small.
        mpp: Resolution of level 0.
        options: Method and limits.

    Returns:
        The mask, and the smoothed colours that it was found by.
    """
    pixel_um = (overview.downsample_x * mpp.x, overview.downsample_y * mpp.y)
    sigma = options.smooth_um / pixel_um[1], options.smooth_um / pixel_um[0]
    white = glass_colour(overview)
    colours = smooth_colours(overview, white, sigma)
    signal, eligible = tissue_signal(overview, colours, white, options, sigma)
    threshold = _threshold(signal, eligible & overview.readable, options)
    notes = []
    mask = _clean(signal, threshold, eligible, pixel_um, options)
    loosened = False
    if mask.mean() < _NEXT_TO_NOTHING:
        looser = _clean(signal, threshold * _LOOSER, eligible, pixel_um, options)
        if np.count_nonzero(looser) > np.count_nonzero(mask):
            threshold, mask, loosened = threshold * _LOOSER, looser, True
            notes.append("next to no tissue was found, the threshold was loosened")
    if not overview.readable.all():
        share = 100.0 * float(1.0 - overview.readable.mean())
        notes.append(f"{share:.2g} % of the slide can't be read and counts as tissue")
        mask |= ~overview.readable
    found = TissueMask(
        mask=mask,
        downsample_x=overview.downsample_x,
        downsample_y=overview.downsample_y,
        method=options.method,
        parameters={**asdict(options), "threshold_used": round(float(threshold), 6), "loosened": loosened},
        note="; ".join(notes),
    )
    return found, colours


def _threshold(signal: NDArray[np.float16], counted: NDArray[np.bool_], options: TissueConfig) -> float:
    """The threshold on the signal; Otsu looks only at what may be glass or tissue, not at ink."""
    if options.method == "threshold":
        return options.threshold
    from skimage.filters import threshold_otsu

    lowest, highest = (
        (options.min_density, max(HIGHEST_DENSITY, options.min_density))
        if options.method == "hed"
        else (LOWEST_SATURATION, HIGHEST_SATURATION)
    )
    top = float(signal.max(initial=0.0))
    if top <= 0.0:
        return lowest
    counts = np.zeros(_BINS, np.int64)
    for rows, _, _ in strips(signal.shape):
        part = signal[rows].astype(np.float32)
        # What absorbs no more than the glass is eligible too, but its colour is noise: it is glass.
        chosen = part[counted[rows] | (part < lowest)]
        counts += np.histogram(chosen, bins=_BINS, range=(0.0, top))[0]
    filled = np.flatnonzero(counts)
    if len(filled) < 2:
        return lowest
    spread = slice(filled[0], filled[-1] + 1)
    middles = (np.arange(_BINS) + 0.5) * (top / _BINS)
    found = float(threshold_otsu(hist=(counts[spread], middles[spread])))  # type: ignore[no-untyped-call]
    return min(max(found, lowest), highest)


def _clean(
    signal: NDArray[np.float16],
    threshold: float,
    eligible: NDArray[np.bool_],
    pixel_um: tuple[float, float],
    options: TissueConfig,
) -> NDArray[np.bool_]:
    pixel_um2 = pixel_um[0] * pixel_um[1]
    # Compared as float32: numpy would round the threshold to half precision.
    tissue = np.empty(signal.shape, np.bool_)
    for rows, _, _ in strips(signal.shape):
        np.greater(signal[rows].astype(np.float32), threshold, out=tissue[rows])
    tissue &= eligible
    without_small(tissue, options.min_object_um2 / pixel_um2)
    without_small(tissue, options.min_hole_um2 / pixel_um2, value=False)
    return tissue
