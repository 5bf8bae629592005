"""Drawing tile values: rasters, heatmaps over the thumbnail, comparisons and galleries."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from wsi_ncmi.core.errors import SlideReadError
from wsi_ncmi.reporting.fonts import drawable, font_file
from wsi_ncmi.reporting.heatmaps.values import (
    COLOUR_TABLE,
    TileLayer,
    TileValues,
    colours_of,
    scale_ticks,
    scale_title,
    scaled,
)
from wsi_ncmi.slides import Slide

if TYPE_CHECKING:
    from PIL import Image, ImageFont

__all__ = ["rasterise", "blank_slide", "draw_comparison", "draw_heatmap", "draw_gallery", "top_tiles"]

_OPACITY = 0.55
_TEXT, _BAR, _MARGIN = 13, 14, 8
_MIN_WIDTH = 420
_GAP = 12
_INK = (20, 20, 20)
_BLANK_PX = 1024
# Of the gallery.
_SHOWN_PX = 192
_COLUMNS = 4
_FRAME, _CAPTION, _CAPTION_TEXT = 4, 34, 12


def rasterise(
    boxes: NDArray[np.float64],
    values: NDArray[np.floating],
    window: tuple[float, float, float, float],
    shape: tuple[int, int],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Averages tile values over the pixels of a picture.

    A tile covers a pixel by the product of the shares of its width and of its height; tiles that overlap
    are averaged. Numbers of pixels and tiles both may be large: the cost is that of the pixels that tiles
    cover.

    Args:
        boxes: float64 (N, 4) left, top, right, bottom in level-0 pixels.
        values: (N,).
        window: Left, top, right, bottom of the picture in level-0 pixels.
        shape: Its height and width in pixels.

    Returns:
        Mean value float32 (h, w), 0 where there is no tile, and covered share of each pixel float32 (h, w),
        0 to 1 (1 also where several tiles overlap).
    """
    height, width = shape
    left, top, right, bottom = window
    empty = np.zeros(shape, np.float32)
    inside = (boxes[:, 2] > left) & (boxes[:, 0] < right) & (boxes[:, 3] > top) & (boxes[:, 1] < bottom)
    if not inside.any():
        return empty, empty.copy()
    chosen = boxes[inside]
    across = _shares((chosen[:, [0, 2]] - left) * (width / (right - left)), width)
    down = _shares((chosen[:, [1, 3]] - top) * (height / (bottom - top)), height)
    weight = np.asarray((down.T @ across).todense(), np.float64)
    numbers = sparse.diags_array(np.asarray(values, np.float64)[inside])
    total = np.asarray((down.T @ numbers @ across).todense(), np.float64)
    # Below a millionth of a pixel it is rounding, not a tile.
    covered = weight > 1e-6
    mean = np.divide(total, weight, out=np.zeros_like(total), where=covered)
    return mean.astype(np.float32), np.minimum(np.where(covered, weight, 0), 1).astype(np.float32)


def _shares(edges: NDArray[np.float64], length: int) -> sparse.csr_array:
    """Share of each pixel that a tile's interval covers: sparse (N, length) from edges (N, 2) in pixels."""
    low, high = np.clip(edges[:, :1], 0, length), np.clip(edges[:, 1:], 0, length)
    first = np.floor(low).astype(np.int64)
    taps = max(1, math.ceil(float((high - first).max())))
    index = first + np.arange(taps)
    share = np.minimum(high, index + 1) - np.maximum(low, index)
    used = (share > 0) & (index < length)
    rows = np.broadcast_to(np.arange(len(edges))[:, None], index.shape)
    return sparse.csr_array((share[used], (rows[used], index[used])), shape=(len(edges), length))


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
        picture: uint8 (h, w, 3), the thumbnail of the whole slide (see ``wsi_ncmi.slides.thumbnail``).
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
    return _with_bar(_blended(picture, tiles, layer, scale, opacity), tiles, layer, scale, "")


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
        text = name
        if tiles is second and (rho := rank_correlation(first, second, layer_name)) is not None:
            text = f"{name} (rank correlation {rho:.2f})"
        parts.append(_with_bar(_blended(picture, tiles, layer, scale, opacity), tiles, layer, scale, text))
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


def _with_bar(
    pixels: NDArray[np.uint8], tiles: TileValues, layer: TileLayer, scale: str, name: str
) -> Image.Image:
    """The slide; below it the scale bar (where the resolution is known), what is drawn, and the colours."""
    from PIL import Image, ImageDraw

    picture = Image.fromarray(pixels)
    width = max(picture.width, _MIN_WIDTH)
    text = drawable("\n".join(line for line in (name, scale_title(layer, scale)) if line))
    font = _font(text, _TEXT)
    lines = [part for line in text.splitlines() for part in _wrapped(line, font, width - 2 * _MARGIN)]
    bar_width = min(width - 6 * _MARGIN, 400)
    length = (
        None
        if tiles.mpp is None
        else scale_bar(tiles.mpp[0] * tiles.size_level0[0] / picture.width, picture.width / 4)
    )
    row = _TEXT + 6
    height = picture.height + row * len(lines) + _BAR + _TEXT + 4 * _MARGIN + (0 if length is None else row)
    whole = Image.new("RGB", (width, height), "white")
    whole.paste(picture)
    pen = ImageDraw.Draw(whole)
    y = picture.height + _MARGIN
    if length is not None:
        across, words = length
        middle = y + _TEXT // 2
        pen.line([(_MARGIN, middle), (_MARGIN + across, middle)], fill=_INK, width=2)
        for x in (_MARGIN, _MARGIN + across):
            pen.line([(x, middle - 4), (x, middle + 4)], fill=_INK, width=2)
        pen.text((_MARGIN + across + 6, y), words, fill=_INK, font=_font(words, _TEXT))
        y += row
    for line in lines:
        pen.text((_MARGIN, y), line, fill=_INK, font=font)
        y += row
    left = 3 * _MARGIN
    bar = np.repeat(COLOUR_TABLE[np.linspace(0, 255, bar_width).round().astype(int)][None], _BAR, axis=0)
    whole.paste(Image.fromarray(np.ascontiguousarray(bar)), (left, y))
    for position, tick in scale_ticks(layer, scale):
        x = left + position * (bar_width - 1)
        pen.line([(x, y + _BAR), (x, y + _BAR + 3)], fill=_INK)
        pen.text((x - font.getlength(tick) / 2, y + _BAR + 4), tick, fill=_INK, font=font)
    return whole


def scale_bar(um_per_px: float, longest_px: float) -> tuple[float, str]:
    """Length in pixels and label of the longest bar of 1, 2 or 5 × 10ⁿ µm that is not longer than that."""
    power = 10.0 ** math.floor(math.log10(um_per_px * longest_px))
    um = max(n * power for n in (1, 2, 5) if n * power <= um_per_px * longest_px * (1 + 1e-9))
    return um / um_per_px, f"{um / 1000:g} mm" if um >= 1000 else f"{um:g} µm"


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """The text in lines that fit: broken between words, or within one that is too long."""
    lines, rest = [], text
    while rest:
        fits = next(n for n in range(len(rest), 0, -1) if n == 1 or font.getlength(rest[:n]) <= width)
        blank = rest.rfind(" ", 1, fits + 1)
        end = fits if fits == len(rest) or blank < 0 else blank
        lines.append(rest[:end])
        rest = rest[end:].lstrip()
    return lines


def _font(text: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(size) if text.isascii() else ImageFont.truetype(font_file(text), size)


def top_tiles(layer: TileLayer, count: int) -> NDArray[np.int64]:
    """Rows of the largest values, the largest first; equal ones in the order of the tiles."""
    order: NDArray[np.int64] = np.argsort(-layer.values.astype(np.float64), kind="stable")[: max(count, 0)]
    return order


def draw_gallery(slide: Slide, tiles: TileValues, layer_name: str, count: int = 16) -> Image.Image:
    """Draws the tiles with the largest values, framed in their colour, with rank, value and place.

    Args:
        slide: The open slide.
        tiles: Tiles and values.
        layer_name: Which values.
        count: How many tiles at most.

    Returns:
        An RGB image; a tile that can't be read is grey, with a note.

    Raises:
        InputError: No such layer.
    """
    from PIL import Image, ImageDraw

    layer = tiles.layer(layer_name)
    rows = top_tiles(layer, count)
    colours = colours_of(scaled(layer, "percentile"))
    cell_w, cell_h = _SHOWN_PX + 2 * _FRAME + 4, _SHOWN_PX + 2 * _FRAME + _CAPTION + 4
    columns = min(_COLUMNS, max(1, len(rows)))
    width = columns * cell_w
    of = "multiple of even attention" if layer.kind == "attention" else "probability of the tile alone"
    heading = f"The {len(rows)} tiles of {len(tiles)} with the highest {layer.name}"
    heading += "" if layer.kind == "share" else f" ({of})"
    if tiles.mpp is not None:
        heading += f"; each is {tiles.mpp[0] * tiles.tile_level0[0]:.4g} µm wide"
    heading = drawable(heading + ". Frame: its percentile. Place: its corner, in level-0 pixels.")
    font = _font(heading, _CAPTION_TEXT)
    lines = _wrapped(heading, font, width - 2 * _FRAME)
    head = (_CAPTION_TEXT + 4) * len(lines) + _FRAME
    whole = Image.new("RGB", (width, head + max(1, -(-len(rows) // columns)) * cell_h), "white")
    pen = ImageDraw.Draw(whole)
    for number, line in enumerate(lines):
        pen.text((_FRAME, (_CAPTION_TEXT + 4) * number + 2), line, fill=_INK, font=font)
    font = _font("", _CAPTION_TEXT)
    for position, row in enumerate(rows):
        left, top = position % columns * cell_w, head + position // columns * cell_h
        frame = (left, top, left + _SHOWN_PX + 2 * _FRAME - 1, top + _SHOWN_PX + 2 * _FRAME - 1)
        pen.rectangle(frame, fill=tuple(int(v) for v in colours[row]))
        x, y = (int(v) for v in tiles.coords[row])
        caption = f"{position + 1}. {_score(layer, int(row))}\nat {x}, {y}"
        try:
            whole.paste(_tile(slide, tiles, x, y), (left + _FRAME, top + _FRAME))
        except SlideReadError:
            inner = (left + _FRAME, top + _FRAME, left + _FRAME + _SHOWN_PX - 1, top + _FRAME + _SHOWN_PX - 1)
            pen.rectangle(inner, fill=(128, 128, 128))
            caption += ": can't be read"
        pen.text((left + _FRAME, frame[3] + 3), caption, fill=_INK, font=font)
    return whole


def _score(layer: TileLayer, row: int) -> str:
    value = float(layer.values[row])
    if layer.kind == "attention":
        return f"attention {value * len(layer.values):.3g} x even"
    return f"probability {value:.3f}" if layer.kind == "evidence" else f"{value:.3g}"


def _tile(slide: Slide, tiles: TileValues, x: int, y: int) -> Image.Image:
    """A tile's pixels from the coarsest level that has enough of them."""
    from PIL import Image

    target = min(tiles.tile_level0) / _SHOWN_PX
    fine = [i for i, level in enumerate(slide.levels) if level.downsample_x <= max(1.0, target)]
    number = max(fine, key=lambda i: slide.levels[i].downsample_x, default=0)
    level = slide.levels[number]
    width = max(1, round(tiles.tile_level0[0] / level.downsample_x))
    height = max(1, round(tiles.tile_level0[1] / level.downsample_y))
    pixels = slide.read_region(x, y, number, width, height)
    return Image.fromarray(pixels).resize((_SHOWN_PX, _SHOWN_PX), Image.Resampling.BOX)
