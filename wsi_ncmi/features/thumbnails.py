"""What a thumbnail of ours carries beside its picture: how much of it is the slide, and the slide undrawn.

The picture has outlines and tiles drawn over it and a legend below. Its JPEG comment says which part is the
slide and holds the slide in small without any drawing: for looks to be compared, and attention to be drawn.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.extraction.drawing import LEAST_WIDTH

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["thumbnail_area", "thumbnail_comment", "undrawn_thumbnail"]

_COMMENT = re.compile(rb"slide area (\d+) x (\d+) px; undrawn image/webp ([A-Za-z0-9+/=]*)")
_UNDRAWN_PX = 384
_MOST_BYTES = 65_000  # a JPEG comment holds 65,533
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
        if len(comment) <= _MOST_BYTES:
            break
    return comment


def undrawn_thumbnail(picture: Image.Image) -> Image.Image | None:
    """The slide in small without outlines, tiles and legend, RGB, at most 384 px; None where there is none.

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
    if picture.width <= LEAST_WIDTH:  # it may have been widened for its legend
        return None
    height = round(picture.width * level0_px[1] / level0_px[0])
    return (picture.width, height) if 0 < height <= picture.height else None
