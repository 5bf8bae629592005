"""Blur of a tile, pen ink, black borders and the scanner's stage.

The measure of blur is a ratio, so that it depends neither on stain nor on how much there is to see: second
differences of the green channel at a lag of about 1 µm against those at about 4 µm. Edges in focus have a
good share of their energy at the fine lag; a Gaussian blur of sigma s takes it away below a lag of s, where
second differences fall with the fourth power of the lag. Noise alone (sharp mucus, empty glass) has as much
at either lag and so never looks blurred.

Blue ink absorbs red more than green, green ink absorbs green least of all, black ink absorbs all alike; no
mixture of haematoxylin and eosin does any of it. Red ink has the hue of eosin with too much blue in it, so it
is recognised by its distance from this slide's own stain. Ink on glass is plain and seeds a mark; over tissue
it is a mixture, is only far from the slide's own tissue, and counts where it is connected with plain ink.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.tissue.colours import RATIO_STEP, Colours, grey_counts, strips
from wsi_ncmi.tissue.connected_components import connected_components, drop_small_components, grown

_FINE_UM, _COARSE_UM = 1.0, 4.0
# Blocks with less coarse energy (squared grey levels) have no detail that could be in focus or not.
_MIN_ENERGY = 40.0
# Ratio of energies: at the first and below a block is out of focus, at the second and above it is sharp.
_BLURRED, _SHARP = 0.037, 0.065
_BLOCKS = 4
_ROW_STEP = 8
# Tiles at a time: their planes then stay in the processor's cache.
_TILES = 4


def tile_blur(pixels: NDArray[np.uint8], mpp: float) -> NDArray[np.float32]:
    """Share of each tile's detail that is out of focus.

    Args:
        pixels: uint8 (n, h, w, 3), tiles as they were read.
        mpp: Their resolution, µm per pixel.

    Returns:
        float32 (n,): 0 = sharp (or nothing to see), 1 = all detail is out of focus.
    """
    n, height, width = pixels.shape[:3]
    fine = max(1, round(_FINE_UM / mpp))
    coarse = max(2 * fine, round(_COARSE_UM / mpp))
    scores = np.zeros(n, np.float32)
    blocks = min(_BLOCKS, min(height, width) // (2 * coarse + _ROW_STEP))
    if blocks:
        # Above 0.5 µm per pixel a pixel is as wide as the fine lag, and its own averaging costs detail.
        aperture = min(1.0, max(0.6, 1.3 - 0.6 * mpp))
        # An edge along the rows must not fall between those that are looked at.
        row_step = min(_ROW_STEP, 2 * fine)
        for start in range(0, n, _TILES):
            part = slice(start, start + _TILES)
            green = _blocks(pixels[part], blocks)
            energies = _energy(green, fine, row_step), _energy(green, coarse, row_step)
            scores[part] = _scores(*energies, aperture)
    return scores


def _scores(fine: NDArray[np.float32], coarse: NDArray[np.float32], aperture: float) -> NDArray[np.float32]:
    """Scores from the energies of each tile's blocks, float32 (n, blocks, blocks) each."""
    ratio = fine / np.maximum(coarse, 1e-6) / aperture
    weight = np.clip(coarse / _MIN_ENERGY - 1.0, 0.0, 1.0)
    soft = np.clip((_SHARP - ratio) / (_SHARP - _BLURRED), 0.0, 1.0)
    total = weight.sum(axis=(1, 2))
    score: NDArray[np.float32] = (soft * weight).sum(axis=(1, 2)) / np.maximum(total, 1.0)
    return score.astype(np.float32)


def _blocks(pixels: NDArray[np.uint8], blocks: int) -> NDArray[np.int16]:
    """Green of tiles (n, h, w, 3) in blocks: int16 (n, blocks, h, blocks, w); what is left over is cut."""
    n, height, width = pixels.shape[:3]
    high, wide = height // blocks, width // blocks
    green = cv2.extractChannel(pixels.reshape(n * height, width, 3), 1).reshape(n, height, width)
    cut = green[:, : high * blocks, : wide * blocks].astype(np.int16)
    return cut.reshape(n, blocks, high, blocks, wide)


def _energy(green: NDArray[np.int16], lag: int, row_step: int) -> NDArray[np.float32]:
    """Mean square of the second differences that lie within a block, float32 (n, blocks, blocks).

    Differences that reach beyond a block would see an edge beside it at the coarse lag only.
    """
    high = green.shape[2]
    lines = green[:, :, ::_ROW_STEP]
    across = lines[..., : -2 * lag] - 2 * lines[..., lag:-lag]
    across += lines[..., 2 * lag :]
    down = green[:, :, : high - 2 * lag : row_step] - 2 * green[:, :, lag : high - lag : row_step]
    down += green[:, :, 2 * lag :: row_step]
    return _mean_square(across) + _mean_square(down)


def _mean_square(difference: NDArray[np.int16]) -> NDArray[np.float32]:
    values = difference.astype(np.float32)
    energy: NDArray[np.float32] = np.einsum("nahbw,nahbw->nab", values, values)
    return energy / np.float32(difference.shape[2] * difference.shape[4])


_MIN_INK_UM2 = 6_000.0
_MIN_SEED_UM2 = 1_500.0
# Limits of the ratios that can be stain at all, to learn the slide's own from.
_STAIN_RED, _STAIN_BLUE, _STAIN_DENSITY = 0.85, 0.75, 0.2
# How far beyond the slide's median ratio is no stain.
_FAR_RED, _FAR_BLUE = 0.16, 0.12
_USUAL_RED, _USUAL_BLUE = 0.65, 0.55


def find_ink(
    colours: Colours, eligible: NDArray[np.bool_], pixel_um2: float, detectors: int
) -> NDArray[np.bool_]:
    """Finds pen marks.

    Args:
        colours: Smoothed densities.
        eligible: bool (h, w); False where there is a border or nothing can be read.
        pixel_um2: Area of a pixel.
        detectors: Version of the detectors.

    Returns:
        bool (h, w).
    """
    red_median, blue_median = _own_stain(colours, eligible)
    plain = np.empty(eligible.shape, np.bool_)
    ink = np.empty(eligible.shape, np.bool_)
    for rows, _, _ in strips(eligible.shape):
        green = colours.green[rows].astype(np.float32)
        red = colours.red_ratio[rows].astype(np.float32) * RATIO_STEP
        blue = colours.blue_ratio[rows].astype(np.float32) * RATIO_STEP
        part = (red > 1.12) & (green > 0.1)
        part |= (red > 0.85) & (blue > 0.8) & (green > 0.25)
        part |= (red < 0.45) & (blue > max(0.74, blue_median + 0.12)) & (green * blue > 0.35)
        if detectors > 4:
            part |= (
                (red < min(0.22, red_median - 0.2)) & (blue > max(0.66, blue_median + 0.09)) & (green > 0.3)
            )
        part &= eligible[rows]
        plain[rows] = part
        mixed = (red > red_median + _FAR_RED) | (blue > blue_median + _FAR_BLUE)
        mixed &= green > 0.4
        if detectors > 4:
            mixed |= (
                (red < min(0.32, red_median - 0.12)) & (blue > max(0.64, blue_median + 0.06)) & (green > 0.2)
            )
        mixed &= eligible[rows]
        ink[rows] = part | mixed
    runs = connected_components(ink)
    weak = (runs.counts(plain) * pixel_um2 < _MIN_SEED_UM2) | (runs.areas() * pixel_um2 < _MIN_INK_UM2)
    drop_small_components(ink, runs, weak)
    return ink


def _own_stain(colours: Colours, eligible: NDArray[np.bool_]) -> tuple[float, float]:
    """Median ratios of red and blue of what can be stain."""
    counts = np.zeros((2, 256), np.int64)
    for rows, _, _ in strips(eligible.shape):
        red, blue = colours.red_ratio[rows], colours.blue_ratio[rows]
        stain = (red < _STAIN_RED / RATIO_STEP) & (blue < _STAIN_BLUE / RATIO_STEP) & eligible[rows]
        stain &= colours.green[rows] > np.float16(_STAIN_DENSITY)
        for row, plane in enumerate((red, blue)):
            counts[row] += grey_counts(plane, 0, stain)
    if counts[0].sum() < 50:
        return _USUAL_RED, _USUAL_BLUE
    sums = counts.cumsum(axis=1)
    red_step, blue_step = (int(np.searchsorted(row, row[-1] / 2)) for row in sums)
    return red_step * RATIO_STEP, blue_step * RATIO_STEP


_MIN_BORDER_UM2 = 10_000.0
# Ink is never that dark over a whole area; black of a scanner is.
_BLACK = 28
# A grey border is neutral, darker than glass, and flat.
_GREY_DENSITY, _NEUTRAL, _FLAT = 0.07, 0.12, 0.015
_MIN_CONTACT = 0.1
# Length along a side over how far it reaches away from it.
_MIN_ALONG = 0.5
_RIM_PX = 2


def find_borders(
    colours: Colours, pixel_um2: float, detectors: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Finds borders of the scan.

    Args:
        colours: Smoothed densities.
        pixel_um2: Area of a pixel.
        detectors: Version of the detectors.

    Returns:
        Their mask, and the same with the rim in which smoothing mixes them with their surroundings,
        bool (h, w) each.
    """
    shape = colours.brightest.shape
    border, around = np.empty(shape, np.bool_), cv2.getStructuringElement(cv2.MORPH_RECT, (3, 3))
    for rows, padded, inner in strips(shape, halo=2):
        green = colours.green[padded].astype(np.float32)
        flat = cv2.dilate(green, around) - cv2.erode(green, around) < _FLAT
        neutral = flat & (green > _GREY_DENSITY)
        for plane in (colours.red_ratio, colours.blue_ratio):
            neutral &= np.abs(plane[padded].astype(np.float32) * RATIO_STEP - 1.0) < _NEUTRAL
        # Flatness ends a pixel before the border does.
        neutral = grown(neutral, 1)
        border[rows] = (neutral | (colours.brightest[padded] <= _BLACK))[inner]
    runs = connected_components(border)
    contact = np.zeros(runs.n_pieces)
    top, bottom, left, right = runs.bounds()
    for at_edge, side, depth in (
        (runs.rows == 0, shape[1], bottom),
        (runs.rows == shape[0] - 1, shape[1], shape[0] - top),
        (runs.starts == 0, shape[0], right),
        (runs.ends == shape[1], shape[0], shape[1] - left),
    ):
        across = side == shape[1] and bool(np.isin(runs.rows[at_edge], (0, shape[0] - 1)).all())
        length = (runs.ends - runs.starts)[at_edge] if across else np.ones(int(at_edge.sum()))
        touched = np.bincount(runs.pieces[at_edge], length, runs.n_pieces)
        if detectors > 4:  # what leads away from the side is a stroke of black ink
            touched[touched < _MIN_ALONG * depth] = 0.0
        contact = np.maximum(contact, touched / side)
    drop_small_components(
        border, runs, (contact < _MIN_CONTACT) | (runs.areas() * pixel_um2 < _MIN_BORDER_UM2)
    )
    return border, grown(border, _RIM_PX)
