"""What a thumbnail carries in its comment."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from wsi_ncmi.features.thumbnails import thumbnail_area, thumbnail_comment, undrawn_thumbnail


def saved(size, comment=None):
    stream = io.BytesIO()
    Image.new("RGB", size, "white").save(stream, "JPEG", **({"comment": comment} if comment else {}))
    return Image.open(stream)


def test_the_slide_comes_back_without_drawing():
    rng = np.random.default_rng(0)
    pixels = np.kron(rng.integers(80, 240, (16, 24, 3)), np.ones((40, 40, 1))).astype(np.uint8)
    picture = saved((960, 700), thumbnail_comment(pixels))
    assert thumbnail_area(picture, (9600, 6400)) == (960, 640)
    small = undrawn_thumbnail(picture)
    assert small.size == (384, 256)
    wanted = np.asarray(Image.fromarray(pixels).resize((384, 256))).astype(float)
    assert np.abs(np.asarray(small).astype(float) - wanted).mean() < 8


def test_the_comment_fits_whatever_the_slide_shows():
    noise = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), dtype=np.uint8)
    comment = thumbnail_comment(noise)
    assert len(comment) <= 65_000
    assert undrawn_thumbnail(saved((1024, 1050), comment)).size == (384, 384)


@pytest.mark.parametrize(
    ("size", "comment", "area"),
    [
        ((1024, 720), None, (1024, 683)),  # an earlier version: by the width
        ((280, 900), None, None),  # which may have been widened for the legend
        ((1024, 500), None, None),  # not of this slide
        ((400, 400), b"slide area 500 x 300 px; undrawn image/webp ", None),
        ((400, 400), b"made by somebody else", (400, 267)),
    ],
)
def test_area_without_or_with_a_strange_comment(size, comment, area):
    picture = saved(size, comment)
    assert thumbnail_area(picture, (3000, 2000)) == area
    assert undrawn_thumbnail(picture) is None


def test_a_damaged_comment_is_no_picture():
    for content in (b"AAAA", b"A"):
        picture = saved((400, 400), b"slide area 400 x 300 px; undrawn image/webp " + content)
        assert undrawn_thumbnail(picture) is None
