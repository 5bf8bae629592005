"""Thumbnails of slides: the drawing for quality control, and the metadata in the file.

The picture has outlines and tiles drawn over it and a legend below. Its JPEG comment says which part is the
slide and holds a smaller thumbnail without any drawing: for comparing slides, and for heatmaps.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import shapely
    from PIL import Image

_COMMENT = re.compile(rb"slide area (\d+) x (\d+) px; undrawn image/webp ([A-Za-z0-9+/=]*)")
_UNDRAWN_PX = 384
_MIN_WIDTH = 280
"""Width that a thumbnail has at least, for its legend."""
_MAX_BYTES = 65_000  # a JPEG comment holds 65,533
_QUALITIES = (75, 50, 25, 5)


def thumbnail_comment(pixels: NDArray[np.uint8]) -> bytes:
    """The JPEG comment of a thumbnail.

    Args:
        pixels: uint8 (h, w, 3), the slide's own pixels before anything is drawn on them.
    """
    from PIL import Image

    height, width = pixels.shape[:2]
    small = Image.fromarray(pixels)
    small.thumbnail((_UNDRAWN_PX, _UNDRAWN_PX))
    comment = b""
    for quality in _QUALITIES:
        written = io.BytesIO()
        small.save(written, format="WEBP", quality=quality)
        undrawn = base64.b64encode(written.getvalue())
        comment = b"slide area %d x %d px; undrawn image/webp %s" % (width, height, undrawn)
        if len(comment) <= _MAX_BYTES:
            break
    return comment


def undrawn_thumbnail(picture: Image.Image) -> Image.Image | None:
    """The slide without outlines, tiles and legend, RGB, at most 384 px; None where there is none.

    Args:
        picture: An opened thumbnail.
    """
    from PIL import Image, UnidentifiedImageError

    said = _COMMENT.fullmatch(picture.info.get("comment", b""))
    if said is None:
        return None
    try:
        return Image.open(io.BytesIO(base64.b64decode(said[3], validate=True))).convert("RGB")
    except (binascii.Error, OSError, UnidentifiedImageError):
        return None


def thumbnail_area(picture: Image.Image, level0_px: tuple[int, int]) -> tuple[int, int] | None:
    """Width and height of the slide's own pixels, which begin at the top left.

    Args:
        picture: An opened thumbnail of ours.
        level0_px: Width and height of the slide.

    Returns:
        Both in pixels; None for a narrow picture of an earlier version, which does not tell.
    """
    said = _COMMENT.fullmatch(picture.info.get("comment", b""))
    if said:
        width, height = int(said[1]), int(said[2])
        return (width, height) if width <= picture.width and height <= picture.height else None
    if picture.width <= _MIN_WIDTH:  # it may have been widened for its legend
        return None
    height = round(picture.width * level0_px[1] / level0_px[0])
    return (picture.width, height) if 0 < height <= picture.height else None


EMPTY, KEPT, DROPPED, UNREADABLE = range(4)
"""States of a tile of the grid."""

Colour = tuple[int, int, int]
COLOURS: dict[str, Colour] = {
    "tissue": (0, 140, 60),
    "kept": (0, 72, 200),
    "dropped": (20, 20, 20),
    "unreadable": (214, 0, 28),
    "pen": (255, 140, 0),
    "fold": (250, 220, 0),
    "border": (140, 90, 40),
    "blur": (0, 205, 225),
}
"""Colours that neither the pink and violet of H&E nor each other are taken for."""

_OUTLINED_PX = 4.0  # smaller tiles have no room for a border of their own
_LINE, _WASH, _AREA = 0.6, 0.22, 0.45
_TEXT, _ROW, _SWATCH = 13, 20, 12


@dataclass(frozen=True, eq=False)
class ThumbnailContent:
    """Content of a thumbnail.

    Attributes:
        pixels: uint8 (h, w, 3), the whole slide.
        level0_px: Width and height of level 0.
        tissue: Outline of the tissue in level-0 pixels.
        artifacts: Artefacts by kind, each bool (any height, any width) over the whole slide, not all False.
        step_level0: Distance of neighbouring tiles in level-0 pixels along x and y.
        states: uint8 (rows, columns) of the grid, ``EMPTY``, ``KEPT``, ``DROPPED`` or ``UNREADABLE``.
        blurred: bool (rows, columns), tiles out of focus.
    """

    pixels: NDArray[np.uint8]
    level0_px: tuple[int, int]
    tissue: Sequence[shapely.Polygon]
    artifacts: Mapping[str, NDArray[np.bool_]]
    step_level0: tuple[float, float]
    states: NDArray[np.uint8]
    blurred: NDArray[np.bool_]


def draw_thumbnail(content: ThumbnailContent) -> Image.Image:
    """Draws everything over the slide and a legend below it; the top-left part is the slide's own pixels.

    Args:
        content: Content of the thumbnail.

    Returns:
        An RGB image, as wide as the pixels (at least 280 px) and higher by the legend.
    """
    from PIL import Image, ImageDraw

    canvas = content.pixels.astype(np.float32)
    height, width = canvas.shape[:2]
    scale = np.array([width / content.level0_px[0], height / content.level0_px[1]])
    for kind, mask in content.artifacts.items():
        rows, columns = _nearest(height, mask.shape[0]), _nearest(width, mask.shape[1])
        _blend(canvas, mask[np.ix_(rows, columns)], kind, _AREA)
    cell_px = (content.step_level0[0] * scale[0], content.step_level0[1] * scale[1])
    columns = _cell_of(width, cell_px[0], content.states.shape[1])
    rows = _cell_of(height, cell_px[1], content.states.shape[0])
    inside = np.logical_and.outer(rows >= 0, columns >= 0)
    place = np.ix_(np.maximum(rows, 0), np.maximum(columns, 0))
    if content.states.size:
        states = np.where(inside, content.states[place], EMPTY)
        _blend(canvas, inside & content.blurred[place] & (states != EMPTY), "blur", _AREA)
        large = min(cell_px) >= _OUTLINED_PX
        edges = np.logical_or.outer(_starts(rows), _starts(columns)) if large else np.ones_like(inside)
        _blend(canvas, (states == KEPT) & edges, "kept", _LINE if large else _WASH)
        cross = _crosses(rows, columns, cell_px) if large else np.ones_like(inside)
        _blend(canvas, (states == DROPPED) & (edges | cross if large else cross), "dropped", _LINE)
        _blend(canvas, (states == UNREADABLE) & (edges | cross if large else cross), "unreadable", 0.85)
    picture = Image.fromarray(np.clip(np.rint(canvas), 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    for polygon in content.tissue:
        for ring in (polygon.exterior, *polygon.interiors):
            points = (np.asarray(ring.coords)[:, :2] * scale).round().astype(int)
            pen.line(points.ravel().tolist(), fill=COLOURS["tissue"], width=2)
    return _with_legend(picture, _entries(content))


def _cell_of(length: int, cell: float, count: int) -> NDArray[np.int64]:
    """The tile that each pixel of a row or column lies in; -1 outside of the grid."""
    index = ((np.arange(length) + 0.5) / cell).astype(np.int64)
    return np.where(index < count, index, -1)


def _starts(cells: NDArray[np.int64]) -> NDArray[np.bool_]:
    """First and last pixel of each tile."""
    changes = np.flatnonzero(np.diff(cells, prepend=-2))
    starts = np.zeros(len(cells), np.bool_)
    starts[changes] = True
    starts[np.maximum(changes - 1, 0)] = True
    starts[-1:] = True
    return starts


def _crosses(
    rows: NDArray[np.int64], columns: NDArray[np.int64], cell: tuple[float, float]
) -> NDArray[np.bool_]:
    """Both diagonals of every tile."""
    y = (np.arange(len(rows)) + 0.5) / cell[1] % 1.0
    x = (np.arange(len(columns)) + 0.5) / cell[0] % 1.0
    near = 0.75 / min(cell)
    falling: NDArray[np.bool_] = np.abs(np.subtract.outer(y, x)) < near
    rising: NDArray[np.bool_] = np.abs(np.add.outer(y, x) - 1.0) < near
    return falling | rising


def _nearest(length: int, count: int) -> NDArray[np.int64]:
    """Index of the part of ``count`` equal ones that each pixel of a side of ``length`` pixels lies in."""
    return ((2 * np.arange(length, dtype=np.int64) + 1) * count) // (2 * length)


def _blend(canvas: NDArray[np.float32], where: NDArray[np.bool_], name: str, strength: float) -> None:
    places, pixels = np.flatnonzero(where), canvas.reshape(-1, 3)
    part = pixels[places]
    part += (np.array(COLOURS[name], np.float32) - part) * np.float32(strength)
    pixels[places] = part


def _entries(content: ThumbnailContent) -> list[tuple[str, str]]:
    """Colour and text of each entry of the legend."""
    entries = [("tissue", "tissue")] if content.tissue else []
    for name, state, words in (
        ("kept", KEPT, "tiles"), ("dropped", DROPPED, "dropped"), ("unreadable", UNREADABLE, "unreadable"),
    ):  # fmt: skip
        if count := int((content.states == state).sum()):
            entries.append((name, f"{count:,} {words}"))
    entries += [(kind, kind) for kind in content.artifacts]
    if (content.blurred & (content.states != EMPTY)).any():
        entries.append(("blur", "blur"))
    return entries or [("dropped", "no tissue")]


def _with_legend(picture: Image.Image, entries: Sequence[tuple[str, str]]) -> Image.Image:
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(_TEXT)
    width = max(picture.width, _MIN_WIDTH)
    x, y, entries_at = 6, picture.height + 4, []
    for name, words in entries:
        needed = _SWATCH + 5 + int(font.getlength(words)) + 14
        if x > 6 and x + needed > width:
            x, y = 6, y + _ROW
        entries_at.append((x, y, name, words))
        x += needed
    whole = Image.new("RGB", (width, y + _ROW), "white")
    whole.paste(picture)
    pen = ImageDraw.Draw(whole)
    for left, top, name, words in entries_at:
        box = (left, top + 2, left + _SWATCH, top + 2 + _SWATCH)
        pen.rectangle(box, fill=COLOURS[name], outline=(60, 60, 60))
        pen.text((left + _SWATCH + 5, top), words, fill=(20, 20, 20), font=font)
    return whole
