"""Tissue segmentation at a stated working resolution.

Both are taken relative to the slide's own glass, so that a tinted or dim scan is not tissue as a whole.
"""

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.slides import Mpp, Overview, Slide, read_overview
from wsi_ncmi.tissue.colours import RATIO_STEP, Colours, glass_colour, smooth, smooth_colours, strips
from wsi_ncmi.tissue.config import TissueConfig
from wsi_ncmi.tissue.connected_components import without_small
from wsi_ncmi.tissue.mask import TissueMask

# Otsu's threshold may split pale from dark tissue; above these values it's no border of glass any more.
HIGHEST_DENSITY = 0.15
HIGHEST_SATURATION = 0.15
# Camera noise and JPEG give empty glass a saturation of up to about 0.03.
LOWEST_SATURATION = 0.04

# Below this brightness (0 to 255) colour is the ratio of two noises, and no stain is that black.
_DARKEST_TISSUE = 40
# Haematoxylin and eosin absorb green most. Blue ink absorbs red more, green ink absorbs green least, black
# ink absorbs all alike.
_MAX_RED, _MAX_BLUE = 1.0 / 0.9, 0.92


def stain_signal(
    overview: Overview,
    colours: Colours,
    white: NDArray[np.float32],
    options: TissueConfig,
    sigma: tuple[float, float],
) -> tuple[NDArray[np.float16], NDArray[np.bool_]]:
    """The picture that is thresholded.

    Args:
        overview: The overview; unreadable places get signal 0.
        colours: Its smoothed densities.
        white: Colour of the glass, float32 (3,).
        options: The method.
        sigma: Smoothing in pixels down and across.

    Returns:
        The signal, float16 (h, w), and where its colour may be that of tissue, bool (h, w).
    """
    eligible = colours.brightest >= _DARKEST_TISSUE
    if options.method == "hed":
        eligible &= colours.red_ratio <= round(_MAX_RED / RATIO_STEP)
        eligible &= colours.blue_ratio <= round(_MAX_BLUE / RATIO_STEP)
        return colours.green, eligible
    height, width = overview.readable.shape
    signal = np.empty((height, width), np.float16)
    for rows, padded, inner in strips((height, width), int(4.0 * sigma[0] + 0.5)):
        pixels, readable = overview.pixels[padded], overview.readable[padded]
        signal[rows] = smooth(_saturation(pixels, readable, white), sigma)[inner]
    return signal, eligible


# What absorbs less than this in every channel may be dust or a tint of the glass.
_DENSE = 0.1
# Other colours are told where they are so much of all that is dense.
_TOLD_SHARE = 1 / 3
SPECIAL_STAIN = "has no colour of H&E"
"""What a remark on special stains says."""


def other_colours_note(
    colours: Colours, eligible: NDArray[np.bool_], tissue: NDArray[np.bool_], smallest_px: float
) -> str:
    """Half a sentence for the ledger where much that is dense has no colour of H&E; else empty.

    The colour alone does not tell ink from a special stain: which it is, a person has to see.

    Args:
        colours: Smoothed densities.
        eligible: bool (h, w), False on borders of the scan and where nothing can be read.
        tissue: bool (h, w), what was found.
        smallest_px: Smaller pieces are specks.
    """
    other = np.empty(tissue.shape, np.bool_)
    for rows, _, _ in strips(tissue.shape):
        red, blue = colours.red_ratio[rows], colours.blue_ratio[rows]
        strongest = np.maximum(np.maximum(red, blue), round(1 / RATIO_STEP)) * np.float32(RATIO_STEP)
        strongest *= colours.green[rows]
        foreign = (red > round(_MAX_RED / RATIO_STEP)) | (blue > round(_MAX_BLUE / RATIO_STEP))
        other[rows] = (strongest > _DENSE) & foreign & (colours.brightest[rows] >= _DARKEST_TISSUE)
    other &= eligible & ~tissue
    without_small(other, smallest_px)
    found, missed = np.count_nonzero(tissue & eligible), np.count_nonzero(other)
    if missed <= _TOLD_SHARE * (found + missed):
        return ""
    return (
        f"{missed / (found + missed):.0%} of what is dense {SPECIAL_STAIN} and was left out: where it "
        "is a special stain and not ink, --set tissue.method=otsu finds it if it is coloured; draw outlines "
        "(--annotations) if it is grey"
    )


def _saturation(
    pixels: NDArray[np.uint8], readable: NDArray[np.bool_], white: NDArray[np.float32]
) -> NDArray[np.float32]:
    top, bottom = np.zeros(readable.shape, np.float32), np.full(readable.shape, 255.0, np.float32)
    for channel in range(3):
        table = np.minimum(np.arange(256) * (255.0 / white[channel]), 255.0).astype(np.float32)
        plane = table[pixels[..., channel]]
        np.maximum(top, plane, out=top)
        np.minimum(bottom, plane, out=bottom)
    saturation: NDArray[np.float32] = ((top - bottom) / np.maximum(top, 1.0)).astype(np.float32)
    saturation[~readable | (top < _DARKEST_TISSUE)] = 0.0
    return saturation


# Less than this share of the slide counts as "next to nothing" and gets a second, looser try.
_NEXT_TO_NOTHING = 0.0005
_LOOSER = 0.6
# Pieces above this share of the limit for objects are worth a word where nothing else is found.
_SPECK = 0.1
_BINS = 1024


def slide_overview(slide: Slide, mpp: Mpp, options: TissueConfig) -> Overview:
    """The slide at the working resolution, or at its own where that is coarser.

    Args:
        slide: An open slide.
        mpp: Its resolution.
        options: The working resolution.

    Raises:
        SlideReadError: Nothing of the slide can be read.
    """
    width = min(slide.width_px, math.ceil(slide.width_px * mpp.x / options.working_mpp))
    height = min(slide.height_px, math.ceil(slide.height_px * mpp.y / options.working_mpp))
    return read_overview(slide, width, height)


def find_tissue(overview: Overview, mpp: Mpp, options: TissueConfig) -> tuple[TissueMask, Colours]:
    """Finds the tissue on a overview.

    Args:
        overview: The overview.
        mpp: Resolution of level 0.
        options: Method and limits.

    Returns:
        The mask, and the smoothed colours that it was found by.
    """
    pixel_um = (overview.downsample_x * mpp.x, overview.downsample_y * mpp.y)
    sigma = options.smooth_um / pixel_um[1], options.smooth_um / pixel_um[0]
    white = glass_colour(overview)
    colours = smooth_colours(overview, white, sigma)
    signal, eligible = stain_signal(overview, colours, white, options, sigma)
    threshold = _threshold(signal, eligible & overview.readable, options)
    notes = []
    mask = _clean(signal, threshold, eligible, pixel_um, options)
    loosened = False
    if mask.mean() < _NEXT_TO_NOTHING:
        looser = _clean(signal, threshold * _LOOSER, eligible, pixel_um, options)
        if np.count_nonzero(looser) > np.count_nonzero(mask):
            threshold, mask, loosened = threshold * _LOOSER, looser, True
            notes.append("next to no tissue was found, the threshold was loosened")
    if not mask.any():
        specks = replace(options, min_object_um2=options.min_object_um2 * _SPECK)
        if _clean(signal, threshold, eligible, pixel_um, specks).any():
            limit = f"{options.min_object_um2:g} µm²"
            notes.append(f"what was found are specks below {limit} (tissue.min_object_um2)")
    notes += add_unreadable(mask, overview.readable)
    found = TissueMask(
        mask=mask,
        downsample_x=overview.downsample_x,
        downsample_y=overview.downsample_y,
        method=options.method,
        parameters={**options.to_json(), "threshold_used": round(float(threshold), 6), "loosened": loosened},
        note="; ".join(notes),
    )
    return found, colours


def add_unreadable(mask: NDArray[np.bool_], readable: NDArray[np.bool_]) -> list[str]:
    """Adds to a mask, in place, what can't be read; gives half a sentence on it where there is any."""
    if readable.all():
        return []
    mask |= ~readable
    return [f"{100.0 * float(1.0 - readable.mean()):.2g} % of the slide can't be read and counts as tissue"]


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
