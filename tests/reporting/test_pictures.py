"""The pair of pictures of a slide."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from wsi_ncmi.features.thumbnails import thumbnail_comment
from wsi_ncmi.reporting import TileAttention, slide_picture


def thumbnail(path, size=(640, 400), legend=24, comment=True):
    """A thumbnail as the extraction leaves it: pink tissue, blue lines drawn over it, a legend below."""
    width, height = size
    pixels = np.full((height, width, 3), 240, np.uint8)
    pixels[40:360, 80:560] = (200, 120, 170)
    drawn = pixels.copy()
    drawn[::20] = (0, 72, 200)
    whole = np.concatenate([drawn, np.full((legend, width, 3), 255, np.uint8)])
    more = {"comment": thumbnail_comment(pixels)} if comment else {}
    Image.fromarray(whole).save(path, format="JPEG", quality=95, **more)
    return path


def attention(weights, models=1):
    """Tiles of 1,000 px in a row on a slide of 6,400 × 4,000."""
    n = len(weights)
    return TileAttention(
        level0_px=(6400, 4000),
        coords=np.stack([1000 * np.arange(n) + 1000, np.full(n, 1000)], axis=1),
        tile_px=(1000.0, 1000.0),
        attention=np.asarray(weights, np.float32),
        models=models,
    )


def pixels_of(address):
    kind, _, content = address.partition(",")
    assert kind == "data:image/webp;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB")).astype(int)


def test_tiles_are_coloured_where_they_lie(tmp_path):
    found = slide_picture("s1", thumbnail(tmp_path / "s1.jpg"), attention([0.7, 0.2, 0.1]))
    picture = pixels_of(found.attention)
    assert picture.shape == (found.height, found.width, 3) == (200, 320, 3)
    first, last = picture[75, 75], picture[75, 175]  # the middle of tiles 1 and 3
    assert first[0] > 180  # viridis: yellow is the highest,
    assert first[2] < 110
    assert last[2] > last[1]  # violet the lowest
    outside = picture[30, 20]
    assert np.ptp(outside) < 12  # grey
    assert "69%" in found.sentence or "70%" in found.sentence
    assert "s1" in found.alt
    assert "one model" in found.attention_alt


def test_the_slide_is_shown_without_what_was_drawn_on_it(tmp_path):
    undrawn = pixels_of(slide_picture("s", thumbnail(tmp_path / "a.jpg"), attention([0.5, 0.5])).slide)
    assert undrawn.shape[0] == 200  # without the legend
    blue = (undrawn[..., 2] > undrawn[..., 0] + 60).mean()
    assert blue < 0.01


def test_a_thumbnail_of_an_earlier_version_is_cut_by_its_width(tmp_path):
    found = slide_picture("s", thumbnail(tmp_path / "a.jpg", comment=False), attention([0.5, 0.5], models=4))
    assert (found.width, found.height) == (320, 200)
    assert "mean of 4 models" in found.attention_alt


def test_equal_attention_has_one_colour(tmp_path):
    picture = pixels_of(slide_picture("s", thumbnail(tmp_path / "a.jpg"), attention([0.5, 0.5])).attention)
    assert abs(picture[75, 75] - picture[75, 125]).max() < 12


@pytest.mark.parametrize("kind", ["missing", "broken", "narrow"])
def test_without_a_usable_thumbnail_there_is_no_picture(tmp_path, kind):
    path = tmp_path / "s.jpg"
    if kind == "broken":
        path.write_bytes(b"no picture")
    if kind == "narrow":
        thumbnail(path, size=(280, 400), comment=False)
    assert slide_picture("s", path, attention([1.0])) is None
