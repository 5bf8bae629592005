"""Parts of a slide read closer, against an overview of the whole slide at that resolution."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsi_ncmi.slides import open_slide, read_overview
from wsi_ncmi.synthesis import write_test_slide
from wsi_ncmi.tissue.closer import CloserLook


@pytest.mark.parametrize("mpp", [0.23, 0.5])
def test_a_part_is_that_of_a_finer_overview(tmp_path: Path, mpp: float) -> None:
    write_test_slide(tmp_path / "slide.svs", mpp=mpp, width_px=1500, height_px=1100)
    with open_slide(tmp_path / "slide.svs") as slide:
        width, height = int(slide.width_px * mpp / 8) + 1, int(slide.height_px * mpp / 8) + 1
        overview = read_overview(slide, width, height)
        closer = CloserLook.at(slide, overview, (8.0, 8.0), 2.67)
        assert closer.factor == 3
        assert slide.levels[closer.level].downsample_x <= overview.downsample_x / 3 + 1e-9
        whole = read_overview(slide, 3 * width, 3 * height).pixels
        rows, columns = slice(5, 21), slice(height // 2, width)
        part = closer.read(rows, columns)
    expected = whole[15:63, 3 * columns.start :]
    assert part.shape == expected.shape
    assert np.abs(part - expected).max() <= 0.51


def test_no_pixel_is_finer_than_the_slides_own(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "coarse.png")
    with open_slide(tmp_path / "coarse.png") as slide:
        closer = CloserLook.at(slide, read_overview(slide, 80, 60), (8.0, 8.0), 2.67)
        assert closer.factor == 1
        np.testing.assert_allclose(closer.read(slice(10, 20), slice(0, 80)), pixels[10:20])
