from __future__ import annotations

from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image
from scipy.ndimage import gaussian_filter

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.synthesis import write_pyramid


def picture(height: int = 700, width: int = 900) -> np.ndarray:
    rng = np.random.default_rng(3)
    smooth = gaussian_filter(rng.normal(0, 1, (height, width, 3)), (5, 5, 0)) * 400 + 150
    pixels = np.clip(smooth, 0, 254).astype(np.uint8)
    pixels[:300, :] = 255
    return pixels


def on_white(slide: openslide.OpenSlide, level: int = 0) -> np.ndarray:
    region = slide.read_region((0, 0), level, slide.level_dimensions[level])
    white = Image.new("RGBA", region.size, "white")
    white.alpha_composite(region)
    return np.asarray(white)[..., :3].astype(int)


@pytest.mark.parametrize("layout", ["aperio", "bigtiff"])
def test_lossless_slides_give_back_every_pixel_and_box_means(tmp_path: Path, layout: str) -> None:
    pixels, path = picture(), tmp_path / "a.tif"
    write_pyramid(path, pixels, 0.5, layout=layout, compression="deflate", tile_px=128)
    with openslide.OpenSlide(path) as slide:
        np.testing.assert_array_equal(on_white(slide), pixels)
        factor = 4 if layout == "aperio" else 2
        height, width = (side // factor for side in pixels.shape[:2])
        cells = pixels[: height * factor, : width * factor].reshape(height, factor, width, factor, 3)
        assert slide.level_dimensions[1] == (width, height)
        assert np.abs(on_white(slide, 1) - cells.mean(axis=(1, 3))).max() <= 0.51


@pytest.mark.parametrize("layout", ["aperio", "bigtiff"])
def test_jpeg_slides_are_close_to_the_source(tmp_path: Path, layout: str) -> None:
    pixels, path = picture(), tmp_path / "a.tif"
    write_pyramid(path, pixels, 0.5, layout=layout, quality=90)
    with openslide.OpenSlide(path) as slide:
        assert np.abs(on_white(slide) - pixels).mean() < 1.0


def test_absent_tiles_have_no_bytes_and_read_as_transparent(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    write_pyramid(path, picture(), 0.5, layout="bigtiff", tile_px=128)
    with tifffile.TiffFile(path) as file:
        assert file.is_bigtiff
        page = file.pages[0]
        counts, offsets = np.array(page.databytecounts), np.array(page.dataoffsets)
    # Rows 0 and 1 of 8 columns lie wholly in the white part; row 2 (256–383) doesn't.
    absent = np.zeros((6, 8), dtype=bool)
    absent[:2] = True
    np.testing.assert_array_equal(counts.reshape(6, 8) == 0, absent)
    np.testing.assert_array_equal(offsets.reshape(6, 8) == 0, absent)
    with openslide.OpenSlide(path) as slide:
        alpha = np.asarray(slide.read_region((0, 0), 0, (900, 700)))[..., 3]
        np.testing.assert_array_equal(alpha[:256], 0)
        np.testing.assert_array_equal(alpha[256:], 255)
        small = np.asarray(slide.read_region((0, 0), 1, (450, 350)))[..., 3]
        np.testing.assert_array_equal(small[:128], 0)
        np.testing.assert_array_equal(small[128:], 255)


def test_aperio_writes_background_and_puts_the_thumbnail_second(tmp_path: Path) -> None:
    path = tmp_path / "a.svs"
    write_pyramid(path, picture(), 0.25, magnification=40)
    with tifffile.TiffFile(path) as file:
        assert [page.is_tiled for page in file.pages] == [True, False, True, True]
        assert min(file.pages[0].databytecounts) > 0
    with openslide.OpenSlide(path) as slide:
        assert slide.properties["openslide.vendor"] == "aperio"
        assert slide.properties["openslide.objective-power"] == "40"
        assert float(slide.properties["openslide.mpp-x"]) == 0.25
        assert set(slide.associated_images) == {"thumbnail"}


def test_a_callback_draws_the_same_file_as_an_array(tmp_path: Path) -> None:
    pixels = picture(512, 768)

    def tile(x: int, y: int) -> np.ndarray | None:
        part = pixels[y : y + 256, x : x + 256]
        return None if (part == 255).all() else np.dstack([part, np.full((256, 256), 255, np.uint8)])

    write_pyramid(tmp_path / "array.tif", pixels, 0.5, layout="bigtiff", tile_px=256)
    write_pyramid(
        tmp_path / "call.tif", tile, 0.5, layout="bigtiff", tile_px=256, width_px=768, height_px=512
    )
    assert (tmp_path / "array.tif").read_bytes() == (tmp_path / "call.tif").read_bytes()


def test_a_scale_that_is_not_given_is_nowhere_in_the_file(tmp_path: Path) -> None:
    for layout in ("aperio", "bigtiff"):
        write_pyramid(tmp_path / layout, picture(), None, layout=layout)
        with openslide.OpenSlide(tmp_path / layout) as slide:
            assert "openslide.mpp-x" not in slide.properties
            assert "openslide.objective-power" not in slide.properties
            assert slide.properties["tiff.ResolutionUnit"] == "none"


def test_what_is_no_pyramid_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    for wrong in ({"factors": (4, 6)}, {"tile_px": 100}, {"factors": (4, 4096)}):
        with pytest.raises(InputError, match="choose"):
            write_pyramid(tmp_path / "a.svs", picture(), 0.5, **wrong)
    with pytest.raises(InputError, match="width_px"):
        write_pyramid(tmp_path / "a.svs", lambda x, y: None, 0.5)
    with pytest.raises(InputError, match="RGB"):
        write_pyramid(tmp_path / "a.svs", picture()[..., 0], 0.5)
    assert list(tmp_path.iterdir()) == []
