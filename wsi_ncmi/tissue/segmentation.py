"""Telling tissue from glass at a stated working resolution."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wsi_ncmi.slides import Mpp, Slide, read_overview
from wsi_ncmi.tissue.mask import TissueMask
from wsi_ncmi.tissue.options import TissueOptions
from wsi_ncmi.tissue.signals import HIGHEST_DENSITY, HIGHEST_SATURATION, LOWEST_SATURATION, tissue_signal

__all__ = ["segment_tissue"]

# Less than this share of the slide counts as "next to nothing" and gets a second, looser try.
_NEXT_TO_NOTHING = 0.0005
_LOOSER = 0.6


def segment_tissue(slide: Slide, mpp: Mpp, options: TissueOptions) -> TissueMask:
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
    width = min(slide.width_px, math.ceil(slide.width_px * mpp.x / options.working_mpp))
    height = min(slide.height_px, math.ceil(slide.height_px * mpp.y / options.working_mpp))
    overview = read_overview(slide, width, height)
    pixel_um = (overview.downsample_x * mpp.x, overview.downsample_y * mpp.y)
    signal, eligible = tissue_signal(overview, options, pixel_um)
    threshold = _threshold(signal, eligible & overview.readable, options)
    notes = []
    mask = _clean(signal > threshold, eligible, pixel_um, options)
    loosened = False
    if mask.mean() < _NEXT_TO_NOTHING:
        looser = _clean(signal > threshold * _LOOSER, eligible, pixel_um, options)
        if np.count_nonzero(looser) > np.count_nonzero(mask):
            threshold, mask, loosened = threshold * _LOOSER, looser, True
            notes.append("next to no tissue was found, the threshold was loosened")
    if not overview.readable.all():
        share = 100.0 * float(1.0 - overview.readable.mean())
        notes.append(f"{share:.2g} % of the slide can't be read and counts as tissue")
        mask |= ~overview.readable
    return TissueMask(
        mask=mask,
        downsample_x=overview.downsample_x,
        downsample_y=overview.downsample_y,
        method=options.method,
        parameters={**asdict(options), "threshold_used": round(float(threshold), 6), "loosened": loosened},
        note="; ".join(notes),
    )


def _threshold(signal: NDArray[np.float32], counted: NDArray[np.bool_], options: TissueOptions) -> float:
    """The threshold on the signal; Otsu looks only at what may be glass or tissue, not at ink."""
    if options.method == "threshold":
        return options.threshold
    from skimage.filters import threshold_otsu

    lowest, highest = (
        (options.min_density, max(HIGHEST_DENSITY, options.min_density))
        if options.method == "hed"
        else (LOWEST_SATURATION, HIGHEST_SATURATION)
    )
    # What absorbs no more than the glass is eligible too, but its colour is noise: it belongs to the glass.
    values = signal[counted | (signal < lowest)]
    if not values.size or values.min() == values.max():
        return lowest
    found = float(threshold_otsu(values))  # type: ignore[no-untyped-call]
    return min(max(found, lowest), highest)


def _clean(
    mask: NDArray[np.bool_],
    eligible: NDArray[np.bool_],
    pixel_um: tuple[float, float],
    options: TissueOptions,
) -> NDArray[np.bool_]:
    pixel_um2 = pixel_um[0] * pixel_um[1]
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
