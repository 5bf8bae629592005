"""The template method: validation, compositing, error wording."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from wsi_ncmi.core.errors import SlideOpenError, SlideReadError, plain_reason
from wsi_ncmi.slides import Level, Slide
from wsi_ncmi.slides.base import MAX_REGION_PX, MAX_SIDE_PX, background_colour, composite


class _Plain(Slide):
    def __init__(self, answer, path=Path("/home/someone/case/a.svs"), sides=(100, 80), **properties):
        levels = [Level(*sides, 1.0, 1.0), Level(50, 40, 2.0, 2.0)]
        super().__init__(path, reader="plain", vendor="none", levels=levels, properties=properties)
        self.answer, self.closed = answer, 0

    def _read(self, x_level0, y_level0, level, width_px, height_px):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def _close(self):
        self.closed += 1


def test_region_is_returned_as_rgb_of_the_asked_shape():
    pixels = np.full((3, 4, 4), 200, np.uint8)
    pixels[:, :, 3] = 255
    region = _Plain(pixels).read_region(np.int64(1), 2, 1, 4, 3)
    assert region.shape == (3, 4, 3)
    assert region.flags.c_contiguous
    assert region.flags.writeable
    assert (region == 200).all()


@pytest.mark.parametrize("position", range(5))
@pytest.mark.parametrize("wrong", [1.0, "1", None, True, np.float64(2)])
def test_anything_but_integers_is_a_type_error(position, wrong):
    request = [0, 0, 0, 4, 3]
    request[position] = wrong
    with pytest.raises(TypeError, match="must be an integer"):
        _Plain(np.zeros((3, 4, 3), np.uint8)).read_region(*request)


@pytest.mark.parametrize(
    "request_",
    [(0, 0, 2, 4, 3), (0, 0, -1, 4, 3), (0, 0, 0, 0, 3), (0, 0, 0, 4, -1), (0, 0, 0, MAX_REGION_PX, 2)],
)
def test_impossible_levels_and_sizes_are_value_errors(request_):
    with pytest.raises(ValueError, match=r"level|region"):
        _Plain(np.zeros((3, 4, 3), np.uint8)).read_region(*request_)


@pytest.mark.parametrize(
    "failure",
    [
        OSError(5, "Input/output error", "/home/someone/case/a.svs"),
        RuntimeError("/home/someone/case/a.svs: bad tile"),
        MemoryError(),
        ZeroDivisionError(),
    ],
)
def test_every_failure_becomes_one_error_with_name_level_and_box_but_no_path(failure):
    with pytest.raises(SlideReadError) as caught:
        _Plain(failure).read_region(-7, 11, 1, 4, 3)
    text = str(caught.value)
    assert text.startswith("a.svs can't be read at level 1, x -7, y 11 (level-0 px), size 4 × 3 px: ")
    assert "someone" not in text
    assert caught.value.__cause__ is failure


@pytest.mark.parametrize(
    "answer",
    [
        np.zeros((3, 4), np.uint8),
        np.zeros((3, 4, 3), np.uint16),
        np.zeros((4, 3, 3), np.uint8),
        np.zeros((3, 4, 2), np.uint8),
    ],
)
def test_a_reader_that_answers_wrongly_is_an_error_not_a_tile(answer):
    with pytest.raises(SlideReadError, match="instead of 8-bit RGB"):
        _Plain(answer).read_region(0, 0, 0, 4, 3)


def test_closing_twice_releases_once_and_then_reading_is_an_error():
    with _Plain(np.zeros((3, 4, 3), np.uint8)) as slide:
        pass
    slide.close()
    assert slide.closed == 1
    with pytest.raises(SlideReadError, match="closed"):
        slide.read_region(0, 0, 0, 4, 3)


@pytest.mark.parametrize("sides", [(0, 80), (100, 0), (-1, 80), (MAX_SIDE_PX + 1, 80)])
def test_absurd_dimensions_are_refused(sides):
    with pytest.raises(SlideOpenError, match=r"a\.svs: level 0 claims"):
        _Plain(None, sides=sides)


def test_properties_are_read_only():
    with pytest.raises(TypeError):
        _Plain(None).properties["x"] = "y"


@given(st.integers(0, 2**32 - 1), st.tuples(*[st.integers(0, 255)] * 3))
def test_compositing_equals_pillow(seed, background):
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 7, 4), dtype=np.uint8)
    image = Image.fromarray(pixels)
    expected = Image.composite(
        image.convert("RGB"), Image.new("RGB", image.size, background), image.getchannel("A")
    )
    np.testing.assert_array_equal(composite(pixels, background), np.asarray(expected))


@pytest.mark.parametrize(
    ("text", "colour"),
    [
        ("FFFFFF", (255,) * 3),
        ("0a10fF", (10, 16, 255)),
        ("#010203", (1, 2, 3)),
        ("12345", (255,) * 3),
        (None, (255,) * 3),
    ],
)
def test_background_colour(text, colour):
    assert background_colour({} if text is None else {"openslide.background-color": text}) == colour


def test_transparent_pixels_get_the_slides_own_background():
    slide = _Plain(np.zeros((3, 4, 4), np.uint8), **{"openslide.background-color": "010203"})
    assert (slide.read_region(0, 0, 0, 4, 3) == (1, 2, 3)).all()


def test_reasons_name_files_without_their_folders():
    path = Path("/data/Müller Patienten/x.svs")
    text = plain_reason(ValueError(f"Reading {path}: bad\n (see /etc/secret/list.txt)."), path)
    assert text == "Reading x.svs: bad (see list.txt)"
    assert len(plain_reason(ValueError("a" * 5000), path)) == 300
