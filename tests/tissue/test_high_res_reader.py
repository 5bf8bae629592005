"""Parts of a slide read closer, against an overview of the whole slide at that resolution."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsi_ncmi.slides import open_slide, read_overview
from wsi_ncmi.synthesis import write_test_slide
from wsi_ncmi.tissue.high_res_reader import HighResReader


def triangle(picture: np.ndarray, factor: float, count: int) -> np.ndarray:
    """Means under triangles of twice a finer pixel's width along both axes, float64 (count, count, 3)."""
    for axis in (0, 1):
        centre = (np.arange(count) + 0.5) * factor
        places = np.arange(picture.shape[axis]) + 0.5
        weights = np.clip(1.0 - np.abs(places[None, :] - centre[:, None]) / factor, 0.0, None)
        weights /= weights.sum(axis=1, keepdims=True)
        picture = np.moveaxis(np.tensordot(weights, picture, (1, axis)), 0, axis)
    return picture


def test_a_finer_pixel_is_the_mean_under_its_triangle(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (240, 240, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    with open_slide(tmp_path / "noise.png") as slide:
        closer = HighResReader(slide, read_overview(slide, 30, 30), (8.0, 8.0), 2.67)
        with closer:
            assert closer.factor == 3
            part = closer.read(slice(5, 20), slice(0, 30))
    expected = triangle(pixels.astype(np.float64), 8 / 3, 90)
    assert part.dtype == np.uint8
    assert np.abs(part - expected[15:60]).max() <= 1.01  # both passes are rounded


@pytest.mark.parametrize("mpp", [0.23, 0.5])
def test_a_part_is_that_of_a_finer_overview(tmp_path: Path, mpp: float) -> None:
    """Shifted by a pixel it would be another picture."""
    write_test_slide(tmp_path / "slide.svs", mpp=mpp, width_px=1500, height_px=1100)
    with open_slide(tmp_path / "slide.svs") as slide:
        width, height = int(slide.width_px * mpp / 8) + 1, int(slide.height_px * mpp / 8) + 1
        overview = read_overview(slide, width, height)
        with HighResReader(slide, overview, (8.0, 8.0), 2.67) as closer:
            assert closer.factor == 3
            assert slide.levels[closer.level].downsample_x <= overview.downsample_x / 3 + 1e-9
            rows, columns = slice(5, 21), slice(height // 2, width)
            part = closer.read(rows, columns).astype(np.int16)
        whole = read_overview(slide, 3 * width, 3 * height).pixels.astype(np.int16)
    place = slice(15, 63), slice(3 * columns.start, 3 * width)
    assert part.shape == whole[place].shape
    near = np.abs(part - whole[place]).mean()
    assert near < 4.0
    for shift in ((1, 0), (0, 1), (-1, 0), (0, -1)):
        assert np.abs(part - np.roll(whole, shift, (0, 1))[place]).mean() > 1.2 * near


def test_no_pixel_is_finer_than_the_slides_own(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "coarse.png")
    with (
        open_slide(tmp_path / "coarse.png") as slide,
        HighResReader(slide, read_overview(slide, 80, 60), (8.0, 8.0), 2.67) as closer,
    ):
        assert closer.factor == 1
        np.testing.assert_array_equal(closer.read(slice(10, 20), slice(0, 80)), pixels[10:20])
