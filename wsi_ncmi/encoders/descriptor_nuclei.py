"""Nuclei of one tile: count, size, roundness, density and spread."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wsi_ncmi.encoders.descriptor_planes import stain_codes

_MIN_AREA_PX = 6  # at half resolution: smaller spots are noise of the JPEG blocks
_LOWEST_THRESHOLD = 16  # haematoxylin code (0.25 OD) below which nothing is a nucleus
_GRID = 4
_AREA_QUANTILES = (0.25, 0.5, 0.75, 0.95)
_EIGHT = np.ones((3, 3), bool)


def otsu_code(histogram: NDArray[np.intp]) -> int:
    """Otsu's threshold of a histogram of 256 codes (the last code of the lower class).

    Args:
        histogram: Counts (256,).

    Returns:
        The code that maximises the variance between the classes; the code itself where there is only one.
    """
    counts = histogram.astype(np.float64)
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * np.arange(256))
    valid = (below > 0) & (above > 0)
    if not valid.any():
        return int(np.argmax(counts))
    between = np.zeros(256)
    difference = sums[valid] / below[valid] - (sums[-1] - sums[valid]) / above[valid]
    between[valid] = below[valid] * above[valid] * difference * difference
    return int(np.argmax(between))


def nuclear_measures(haematoxylin: NDArray[np.float32], eosin: NDArray[np.float32]) -> NDArray[np.float64]:
    """Segments dark haematoxylin spots by Otsu's threshold and measures them.

    Args:
        haematoxylin: float32 (h, w) density at half the tile's resolution (twice its pixel size).
        eosin: float32 (h, w), same.

    Returns:
        float64 vector, in the order of :func:`nuclear_measures_names`; zeros where there is no nucleus.
    """
    codes = stain_codes(haematoxylin)
    threshold = max(otsu_code(np.bincount(codes.ravel(), minlength=256)), _LOWEST_THRESHOLD)
    mask = codes > threshold
    outside = ~mask
    background = float(haematoxylin[outside].mean(dtype=np.float64)) if outside.any() else 0.0
    local = _local_shares(mask)
    head = [threshold / 64, float(mask.mean()), local.std(), local.max(), local.min(), background]
    return np.concatenate([head, _object_measures(mask, haematoxylin, eosin, background)])


def _local_shares(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Share of nuclear pixels in each cell of a 4 × 4 grid."""
    rows = (np.arange(_GRID + 1) * mask.shape[0]) // _GRID
    columns = (np.arange(_GRID + 1) * mask.shape[1]) // _GRID
    bands = np.add.reduceat(mask, rows[:-1], axis=0, dtype=np.int64)
    sums = np.add.reduceat(bands, columns[:-1], axis=1)
    return np.asarray(sums / (np.diff(rows)[:, None] * np.diff(columns)[None, :]))


def _object_measures(
    mask: NDArray[np.bool_],
    haematoxylin: NDArray[np.float32],
    eosin: NDArray[np.float32],
    background: float,
) -> NDArray[np.float64]:
    """Sizes, shapes and densities of the connected spots; by sums over labels, with no loop over spots."""
    labels, count = ndimage.label(mask, _EIGHT)
    flat = np.flatnonzero(mask)
    label = labels.ravel()[flat] - 1
    area = np.bincount(label, minlength=count).astype(np.float64)
    keep = area >= _MIN_AREA_PX
    if not keep.any():
        return np.zeros(len(_object_names()))

    def mean_of(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.bincount(label, weights=values, minlength=count) / area)

    density = haematoxylin.ravel()[flat].astype(np.float64)
    mean_density = mean_of(density)
    inner_spread = np.sqrt(np.maximum(mean_of(density * density) - mean_density**2, 0))
    pink = mean_of(eosin.ravel()[flat].astype(np.float64))
    eccentricity, fill = _ellipse(*np.divmod(flat, mask.shape[1]), label, mean_of)
    edge = mask & ~ndimage.binary_erosion(mask)
    border = np.bincount(labels.ravel()[np.flatnonzero(edge)] - 1, minlength=count)
    roundness = 2 * np.sqrt(np.pi * area) / np.maximum(border, 1)

    log_area = np.log2(area[keep])
    sizes = [log_area.mean(), log_area.std(), *np.quantile(log_area, _AREA_QUANTILES)]
    weighted = np.log2((area[keep] ** 2).sum() / area[keep].sum())
    pairs: list[float] = []
    for values in (
        eccentricity,
        np.minimum(fill, 4),
        np.minimum(roundness, 4),
        mean_density,
        inner_spread,
        pink,
    ):
        pairs += [values[keep].mean(), values[keep].std()]
    contrast = mean_density[keep].mean() - background
    relation = _correlation(log_area, mean_density[keep])
    return np.array([1000 * keep.sum() / mask.size, *sizes, weighted, *pairs, contrast, relation])


def _ellipse(
    y: NDArray[np.intp],
    x: NDArray[np.intp],
    label: NDArray[np.intp],
    mean_of: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eccentricity of each spot, and its area over that of the ellipse with the same second moments.

    The second is 1 for an ellipse and less for lobes, rings and chains.
    """
    dy, dx = y - mean_of(y.astype(np.float64))[label], x - mean_of(x.astype(np.float64))[label]
    # 1/12 is the variance of one pixel's own square: a single row of pixels keeps a width.
    yy, xx, xy = mean_of(dy * dy) + 1 / 12, mean_of(dx * dx) + 1 / 12, mean_of(dy * dx)
    root = np.hypot(yy - xx, 2 * xy)
    major, minor = (yy + xx + root) / 2, (yy + xx - root) / 2
    area = np.bincount(label, minlength=major.size)
    eccentricity = np.sqrt(np.clip(1 - minor / major, 0, 1))
    return eccentricity, area / (4 * np.pi * np.sqrt(np.maximum(major * minor, 1e-6)))


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    if a.size < 3 or a.std() < 1e-6 or b.std() < 1e-6:
        return 0.0
    return float(np.clip(np.corrcoef(a, b)[0, 1], -1, 1))


def _object_names() -> tuple[str, ...]:
    pairs = ("eccentricity", "fill", "roundness", "density", "inner spread", "eosin")
    return (
        "nuclei per 1000 px",
        "log2 area mean",
        "log2 area sd",
        *(f"log2 area q{quantile:g}" for quantile in _AREA_QUANTILES),
        "log2 area weighted",
        *(f"nuclear {name} {what}" for name in pairs for what in ("mean", "sd")),
        "nuclear contrast",
        "nuclear area-density correlation",
    )


def nuclear_measures_names() -> tuple[str, ...]:
    """Names of the values of :func:`nuclear_measures`."""
    local = tuple(f"nuclear share local {what}" for what in ("sd", "max", "min"))
    return ("nuclear threshold", "nuclear share", *local, "density outside nuclei", *_object_names())
