"""Heatmaps over the slide in small, with their colour bar; two models side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.reporting.heatmaps.colours import COLOUR_TABLE, colours_of
from wsi_ncmi.reporting.heatmaps.raster import rasterise
from wsi_ncmi.reporting.heatmaps.scales import scale_ticks, scale_title, scaled
from wsi_ncmi.reporting.heatmaps.values import TileLayer, TileValues

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["blank_slide", "draw_comparison", "draw_heatmap"]

_OPACITY = 0.55
_TEXT, _BAR, _MARGIN = 13, 14, 8
_LEAST_WIDTH = 420
_GAP = 12
_BLANK_PX = 1024


def blank_slide(size_level0: tuple[int, int], longest_px: int = _BLANK_PX) -> NDArray[np.uint8]:
    """White in the shape of a slide, for heatmaps without its pixels."""
    scale = longest_px / max(size_level0)
    width, height = (max(1, round(side * scale)) for side in size_level0)
    return np.full((height, width, 3), 255, np.uint8)


def draw_heatmap(
    picture: NDArray[np.uint8], tiles: TileValues, layer_name: str, scale: str, *, opacity: float = _OPACITY
) -> Image.Image:
    """Draws one layer over the slide.

    Args:
        picture: uint8 (h, w, 3), the whole slide in small (see ``wsi_ncmi.slides.thumbnail``).
        tiles: Tiles and values.
        layer_name: Which values.
        scale: ``percentile`` or ``absolute``.
        opacity: Of the colours, 0 to 1.

    Returns:
        An RGB image with a title and the colour bar below it.

    Raises:
        InputError: No such layer or scale.
    """
    layer = tiles.layer(layer_name)
    return _with_bar(_blended(picture, tiles, layer, scale, opacity), layer, scale, "")


def draw_comparison(
    picture: NDArray[np.uint8],
    first: TileValues,
    second: TileValues,
    layer_name: str,
    scale: str,
    names: tuple[str, str],
    *,
    opacity: float = _OPACITY,
) -> Image.Image:
    """Draws the same layer of two models beside each other, on the same scale.

    Where both have the same tiles, the rank correlation (Spearman) of their values stands below.

    Args:
        picture: As for :func:`draw_heatmap`.
        first: Values of the first model.
        second: Values of the second.
        layer_name: Which values.
        scale: ``percentile`` or ``absolute``.
        names: Names of the models.
        opacity: Of the colours.

    Raises:
        InputError: No such layer or scale.
    """
    from PIL import Image

    parts = []
    for tiles, name in zip((first, second), names, strict=True):
        layer = tiles.layer(layer_name)
        words = name
        if tiles is second and (rho := rank_correlation(first, second, layer_name)) is not None:
            words = f"{name} (rank correlation {rho:.2f})"
        parts.append(_with_bar(_blended(picture, tiles, layer, scale, opacity), layer, scale, words))
    height = max(part.height for part in parts)
    whole = Image.new("RGB", (sum(part.width for part in parts) + _GAP, height), "white")
    left = 0
    for part in parts:
        whole.paste(part, (left, 0))
        left += part.width + _GAP
    return whole


def rank_correlation(first: TileValues, second: TileValues, layer_name: str) -> float | None:
    """Spearman's correlation of two models' values; None for other tiles, or where one has no spread."""
    from scipy.stats import spearmanr

    if len(first) < 2 or not np.array_equal(first.coords, second.coords):
        return None
    a, b = first.layer(layer_name).values, second.layer(layer_name).values
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(spearmanr(a, b).statistic)


def _blended(
    picture: NDArray[np.uint8], tiles: TileValues, layer: TileLayer, scale: str, opacity: float
) -> NDArray[np.uint8]:
    height, width = picture.shape[:2]
    window = (0.0, 0.0, float(tiles.size_level0[0]), float(tiles.size_level0[1]))
    mean, covered = rasterise(tiles.boxes, scaled(layer, scale), window, (height, width))
    alpha = (covered * opacity)[..., None]
    mixed = picture.astype(np.float32) * (1 - alpha) + colours_of(mean).astype(np.float32) * alpha
    blended: NDArray[np.uint8] = np.rint(mixed).astype(np.uint8)
    return blended


def _with_bar(pixels: NDArray[np.uint8], layer: TileLayer, scale: str, name: str) -> Image.Image:
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(_TEXT)
    picture = Image.fromarray(pixels)
    lines = [line for line in (name, scale_title(layer, scale)) if line]
    needed = max(int(font.getlength(line)) for line in lines) + 2 * _MARGIN
    width = max(picture.width, _LEAST_WIDTH, needed)
    bar_width = min(width - 6 * _MARGIN, 400)
    height = picture.height + (_TEXT + 6) * len(lines) + _BAR + _TEXT + 4 * _MARGIN
    whole = Image.new("RGB", (width, height), "white")
    whole.paste(picture)
    pen = ImageDraw.Draw(whole)
    y = picture.height + _MARGIN
    for line in lines:
        pen.text((_MARGIN, y), line, fill=(20, 20, 20), font=font)
        y += _TEXT + 6
    left = 3 * _MARGIN
    bar = np.repeat(COLOUR_TABLE[np.linspace(0, 255, bar_width).round().astype(int)][None], _BAR, axis=0)
    whole.paste(Image.fromarray(np.ascontiguousarray(bar)), (left, y))
    for place, words in scale_ticks(layer, scale):
        x = left + place * (bar_width - 1)
        pen.line([(x, y + _BAR), (x, y + _BAR + 3)], fill=(20, 20, 20))
        pen.text((x - font.getlength(words) / 2, y + _BAR + 4), words, fill=(20, 20, 20), font=font)
    return whole
