"""Smooth random fields, and outlines cut from them: polygons in level-0 pixels and their rasters."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from shapely import Polygon, unary_union
from shapely.geometry.base import BaseGeometry


def periodic_noise(
    rng: np.random.Generator, size_px: int, length_x_px: float, length_y_px: float
) -> NDArray[np.float32]:
    """Gaussian noise, low-passed so that its features measure about ``length`` px, without a seam.

    Args:
        rng: Source of randomness.
        size_px: Edge of the square and period, px.
        length_x_px: Gaussian sigma along x, px.
        length_y_px: Gaussian sigma along y, px.

    Returns:
        float32 (size_px, size_px) with mean 0 and standard deviation 1.
    """
    spectrum = np.fft.rfft2(rng.standard_normal((size_px, size_px), dtype=np.float32))
    fx = np.fft.rfftfreq(size_px).astype(np.float32)
    fy = np.fft.fftfreq(size_px).astype(np.float32)[:, None]
    spectrum *= np.exp(-2.0 * np.pi**2 * ((fx * length_x_px) ** 2 + (fy * length_y_px) ** 2))
    field = np.fft.irfft2(spectrum, s=(size_px, size_px)).astype(np.float32)
    field -= field.mean()
    normalised: NDArray[np.float32] = field / max(float(field.std()), 1e-9)
    return normalised


def warp(
    field: NDArray[np.float32], shift_x: NDArray[np.float32], shift_y: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Displaces a periodic field by px shifts (bilinear); stays periodic."""
    from scipy.ndimage import map_coordinates

    rows, columns = np.indices(field.shape, dtype=np.float32)
    warped: NDArray[np.float32] = map_coordinates(
        field, (rows + shift_y, columns + shift_x), order=1, mode="grid-wrap", output=np.float32
    )
    return warped


def coarse_noise(rng: np.random.Generator, height: int, width: int, length: float) -> NDArray[np.float32]:
    """Noise of feature size ``length`` (cells) on a coarse grid, mean about 0, standard deviation about 1.

    It is drawn at ``length / 2`` cells and interpolated, so the cost doesn't grow with the feature size.
    """
    from PIL import Image

    step = max(length / 2.0, 1.0)
    rows, columns = int(np.ceil(height / step)) + 4, int(np.ceil(width / step)) + 4
    small = Image.fromarray(rng.standard_normal((rows, columns), dtype=np.float32))
    box = (1.5, 1.5, 1.5 + width / step, 1.5 + height / step)
    large = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC, box=box), dtype=np.float32)
    return large * np.float32(1.35)


def threshold_for_area(field: NDArray[np.float32], cells: float) -> float:
    """The value above which ``cells`` cells of the field lie."""
    values = np.sort(field[np.isfinite(field)])[::-1]
    index = int(np.clip(round(cells), 1, len(values) - 1))
    return float((values[index - 1] + values[index]) / 2)


def polygons_of(geometry: BaseGeometry, min_area: float = 0.0) -> tuple[Polygon, ...]:
    """The polygons of any geometry above an area, in a fixed order (by their bounds)."""
    parts = [geometry] if isinstance(geometry, Polygon) else list(getattr(geometry, "geoms", []))
    return tuple(
        sorted((p for p in parts if isinstance(p, Polygon) and p.area > min_area), key=lambda p: p.bounds)
    )


def level_polygons(
    field: NDArray[np.float32],
    level: float,
    cell_px: int,
    *,
    min_area_px: float = 0.0,
    inside: Iterable[Polygon] | None = None,
) -> tuple[Polygon, ...]:
    """Outlines of ``field > level`` (a field whose border lies below and which has no holes).

    Args:
        field: float32 (rows, columns); the value of a cell belongs to its middle.
        level: Threshold.
        cell_px: Edge of a cell in level-0 px.
        min_area_px: Smaller outlines are left out (level-0 px²).
        inside: When given, the result is cut to these polygons.

    Returns:
        Valid polygons in level-0 px, coordinates rounded to 1/8 px.
    """
    from skimage.measure import find_contours

    rings = []
    for contour in find_contours(field.astype(np.float64), level):  # type: ignore[no-untyped-call]
        if len(contour) < 4:
            continue
        xy = (contour[:, ::-1] + 0.5) * cell_px
        rings.append(Polygon(np.round(xy * 8) / 8).simplify(0.06 * cell_px).buffer(0))
    merged = unary_union([ring for ring in rings if not ring.is_empty])
    if inside is not None:
        merged = merged.intersection(unary_union(list(inside)))
    return polygons_of(merged, min_area_px)


def draw_polygons(
    polygons: Iterable[Polygon], width: int, height: int, scale: float, value: int = 255
) -> NDArray[np.uint8]:
    """Rasters polygons given in level-0 px on a grid ``scale`` times as fine (0.5: every second pixel).

    Returns:
        uint8 (height, width) with ``value`` inside and 0 outside.
    """
    from PIL import Image, ImageDraw

    image = Image.new("L", (width, height))
    pen = ImageDraw.Draw(image)
    for polygon in polygons:
        # Pillow draws through pixel middles, which lie half a pixel off the coordinates of a polygon.
        pen.polygon([(x * scale - 0.5, y * scale - 0.5) for x, y in polygon.exterior.coords], fill=value)
        for hole in polygon.interiors:
            pen.polygon([(x * scale - 0.5, y * scale - 0.5) for x, y in hole.coords], fill=0)
    return np.array(image)
