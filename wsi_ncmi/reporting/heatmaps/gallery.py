"""The tiles that count most, as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import SlideReadError
from wsi_ncmi.reporting.heatmaps.colours import colours_of
from wsi_ncmi.reporting.heatmaps.scales import scaled
from wsi_ncmi.reporting.heatmaps.values import TileLayer, TileValues
from wsi_ncmi.slides import Slide

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["draw_gallery", "top_tiles"]

_SHOWN_PX = 192
_COLUMNS = 4
_FRAME, _CAPTION, _TEXT = 4, 18, 12


def top_tiles(layer: TileLayer, count: int) -> NDArray[np.int64]:
    """Rows of the largest values, the largest first; equal ones in the order of the tiles."""
    order: NDArray[np.int64] = np.argsort(-layer.values.astype(np.float64), kind="stable")[: max(count, 0)]
    return order


def draw_gallery(slide: Slide, tiles: TileValues, layer_name: str, count: int = 16) -> Image.Image:
    """Draws the tiles with the largest values, framed in their colour, with value and place.

    Args:
        slide: The open slide.
        tiles: Tiles and values.
        layer_name: Which values.
        count: How many tiles at most.

    Returns:
        An RGB image; a tile that can't be read is grey and says so.

    Raises:
        InputError: No such layer.
    """
    from PIL import Image, ImageDraw, ImageFont

    layer = tiles.layer(layer_name)
    rows = top_tiles(layer, count)
    colours = colours_of(scaled(layer, "percentile"))
    font = ImageFont.load_default(_TEXT)
    cell_w, cell_h = _SHOWN_PX + 2 * _FRAME + 4, _SHOWN_PX + 2 * _FRAME + _CAPTION + 4
    columns = min(_COLUMNS, max(1, len(rows)))
    whole = Image.new("RGB", (columns * cell_w, max(1, -(-len(rows) // columns)) * cell_h), "white")
    pen = ImageDraw.Draw(whole)
    for position, row in enumerate(rows):
        left, top = position % columns * cell_w, position // columns * cell_h
        frame = (left, top, left + _SHOWN_PX + 2 * _FRAME - 1, top + _SHOWN_PX + 2 * _FRAME - 1)
        pen.rectangle(frame, fill=tuple(int(v) for v in colours[row]))
        x, y = (int(v) for v in tiles.coords[row])
        caption = f"{layer.values[row]:.3g} at {x}, {y}"
        try:
            whole.paste(_tile(slide, tiles, x, y), (left + _FRAME, top + _FRAME))
        except SlideReadError:
            inner = (left + _FRAME, top + _FRAME, left + _FRAME + _SHOWN_PX - 1, top + _FRAME + _SHOWN_PX - 1)
            pen.rectangle(inner, fill=(128, 128, 128))
            caption = "can't be read"
        pen.text((left + _FRAME, frame[3] + 3), caption, fill=(20, 20, 20), font=font)
    return whole


def _tile(slide: Slide, tiles: TileValues, x: int, y: int) -> Image.Image:
    """A tile's pixels from the coarsest level that has enough of them."""
    from PIL import Image

    wanted = min(tiles.tile_level0) / _SHOWN_PX
    fine = [i for i, level in enumerate(slide.levels) if level.downsample_x <= max(1.0, wanted)]
    number = max(fine, key=lambda i: slide.levels[i].downsample_x, default=0)
    level = slide.levels[number]
    width = max(1, round(tiles.tile_level0[0] / level.downsample_x))
    height = max(1, round(tiles.tile_level0[1] / level.downsample_y))
    pixels = slide.read_region(x, y, number, width, height)
    return Image.fromarray(pixels).resize((_SHOWN_PX, _SHOWN_PX), Image.Resampling.BOX)
