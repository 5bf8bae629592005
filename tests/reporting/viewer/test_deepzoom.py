"""Deep Zoom tiles against OpenSlide's own generator and against the slide's pixels."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import openslide
import openslide.deepzoom
import pytest
from PIL import Image

from wsi_ncmi.reporting.viewer import DeepZoom
from wsi_ncmi.slides import open_slide
from wsi_ncmi.synthesis import write_pyramid


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Smooth enough that a pixel of shift shows and ringing of a resampler does not."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(60, 200, (height // 16 + 2, width // 16 + 2, 3), np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def slide_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slides") / "s.svs"
    write_pyramid(path, picture(2300, 1700), 0.5, quality=95)
    return path


def test_levels_and_tiles_are_those_of_openslides_generator(slide_path: Path) -> None:
    with open_slide(slide_path) as slide, openslide.OpenSlide(slide_path) as other:
        ours = DeepZoom(slide, 254)
        theirs = openslide.deepzoom.DeepZoomGenerator(other, tile_size=254, overlap=0)
        assert ours.level_count == theirs.level_count
        for level, size in enumerate(theirs.level_dimensions):
            assert ours.size(level) == size
            columns, rows = theirs.level_tiles[level]
            assert ours.has(level, columns - 1, rows - 1)
            assert not ours.has(level, columns, 0)
            assert not ours.has(level, 0, rows)
        assert not ours.has(ours.level_count, 0, 0)
        ours.close()


def mean_of_level_0(
    slide: openslide.OpenSlide, zoom: DeepZoom, level: int, column: int, row: int
) -> np.ndarray:
    """A tile as the plain mean of OpenSlide's own level-0 pixels; the slide's last row and column left out."""
    step = 1 << (zoom.level_count - 1 - level)
    (left, top, right, bottom), _ = zoom.window(level, column, row)
    width = int(min(right, slide.dimensions[0]) - left) // step * step
    height = int(min(bottom, slide.dimensions[1]) - top) // step * step
    pixels = np.asarray(slide.read_region((int(left), int(top)), 0, (width, height)).convert("RGB"), float)
    mean: np.ndarray = pixels.reshape(height // step, step, width // step, step, 3).mean((1, 3))
    return mean


def test_pixels_are_the_mean_of_openslides(slide_path: Path) -> None:
    with open_slide(slide_path) as slide, openslide.OpenSlide(slide_path) as other:
        zoom = DeepZoom(slide, 254)
        for level in range(zoom.level_count - 4, zoom.level_count):
            width, height = zoom.size(level)
            for column in range(math.ceil(width / 254)):
                for row in range(math.ceil(height / 254)):
                    expected = mean_of_level_0(other, zoom, level, column, row)
                    found = zoom.pixels(level, column, row)[: expected.shape[0], : expected.shape[1]]
                    difference = np.abs(found - expected).mean()
                    # Coarser levels of the slide went through JPEG once more, with halved chroma.
                    assert difference < (0.01 if level == zoom.level_count - 1 else 5), (level, column, row)
                    if (
                        level < zoom.level_count - 1 and min(found.shape[:2]) > 4
                    ):  # a pixel's shift would show
                        assert np.abs(found[:, 1:] - expected[:, :-1]).mean() > 1.5 * difference
        zoom.close()


def test_stored_tiles_are_decoded_directly_and_give_the_readers_pixels(slide_path: Path) -> None:
    with open_slide(slide_path) as slide:
        zoom = DeepZoom(slide, 512)
        last = zoom.level_count - 1
        found = zoom.pixels(last, 1, 1)
        assert zoom._levels[0].direct
        np.testing.assert_allclose(found, slide.read_region(512, 512, 0, 512, 512).astype(int), atol=1)
        zoom.close()


def test_a_flat_picture_of_one_level_is_averaged_exactly(tmp_path: Path) -> None:
    pixels = picture(1500, 1100)
    Image.fromarray(pixels).save(tmp_path / "s.png")
    with open_slide(tmp_path / "s.png") as slide:
        zoom = DeepZoom(slide, 256)
        for level in range(zoom.level_count - 5, zoom.level_count):
            step = 1 << (zoom.level_count - 1 - level)
            width, height = zoom.size(level)
            whole = np.zeros((height, width, 3), np.uint8)
            for row in range(math.ceil(height / 256)):
                for column in range(math.ceil(width / 256)):
                    tile = zoom.pixels(level, column, row)
                    whole[
                        row * 256 : row * 256 + tile.shape[0], column * 256 : column * 256 + tile.shape[1]
                    ] = tile
            inner = pixels[: 1100 // step * step, : 1500 // step * step].astype(float)
            expected = inner.reshape(1100 // step, step, 1500 // step, step, 3).mean((1, 3))
            part = whole[: 1100 // step, : 1500 // step]
            # Beyond a reduction of 8 a tile is made of four that were rounded already.
            np.testing.assert_allclose(part, expected, atol=0.51 if step <= 8 else 1.1)
        zoom.close()


def test_a_window_is_where_a_tile_lies(slide_path: Path) -> None:
    with open_slide(slide_path) as slide:
        zoom = DeepZoom(slide, 512)
        level = zoom.level_count - 3  # one pixel for 4 × 4
        (left, top, right, bottom), shape = zoom.window(level, 1, 0)
        assert (left, top) == (2048, 0)
        assert shape == zoom.pixels(level, 1, 0).shape[:2] == (425, 63)
        assert ((right - left) / 4, (bottom - top) / 4) == (63, 425)


def test_a_jpeg_is_the_tile_and_a_tile_that_is_not_there_is_none(slide_path: Path) -> None:
    with open_slide(slide_path) as slide:
        zoom = DeepZoom(slide)
        decoded = np.asarray(Image.open(io.BytesIO(zoom.jpeg(zoom.level_count - 1, 0, 0))))
        assert np.abs(decoded.astype(int) - zoom.pixels(zoom.level_count - 1, 0, 0)).mean() < 3
        with pytest.raises(KeyError):
            zoom.pixels(zoom.level_count - 1, 99, 0)
        zoom.close()


@pytest.mark.real_data
def test_the_real_slide(real_data: Path) -> None:
    path = real_data / "slides" / "CMU-1-Small-Region.svs"
    with open_slide(path) as slide, openslide.OpenSlide(path) as other:
        ours = DeepZoom(slide, 240)
        theirs = openslide.deepzoom.DeepZoomGenerator(other, tile_size=240, overlap=0, limit_bounds=False)
        last = ours.level_count - 1
        for column, row in ((0, 0), (4, 5), (9, 12)):
            expected = np.asarray(theirs.get_tile(last, (column, row)).convert("RGB"))
            np.testing.assert_array_equal(ours.pixels(last, column, row), expected)
        for level, column, row in ((last - 1, 2, 3), (last - 2, 1, 1), (last - 3, 0, 1)):
            expected = mean_of_level_0(other, ours, level, column, row)
            found = ours.pixels(level, column, row)[: expected.shape[0], : expected.shape[1]]
            np.testing.assert_allclose(found, expected, atol=0.51)
        ours.close()
