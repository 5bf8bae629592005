"""Metadata of a thumbnail: the area of the slide in it, and the slide without drawings.

The picture has outlines and tiles drawn over it and a legend below. Its JPEG comment says which part is the
slide and holds a smaller thumbnail without any drawing: for comparing slides, and for heatmaps.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

_COMMENT = re.compile(rb"slide area (\d+) x (\d+) px; undrawn image/webp ([A-Za-z0-9+/=]*)")
_UNDRAWN_PX = 384
MIN_WIDTH = 280
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
    if picture.width <= MIN_WIDTH:  # it may have been widened for its legend
        return None
    height = round(picture.width * level0_px[1] / level0_px[0])
    return (picture.width, height) if 0 < height <= picture.height else None
