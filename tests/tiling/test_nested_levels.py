"""Tiles of levels in sub-directories: decoded directly, and those of the slide that they were taken from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.slides.ome_slide import OME, halves, image_xml, stored_levels, write_nested, write_stored
from tests.tiling.conftest import Kind, everything, read_all, texture
from wsi_ncmi.core.errors import SlideOpenError, SlideReadError
from wsi_ncmi.slides import Mpp, open_slide
from wsi_ncmi.tiling import GridConfig, TileGrid, TileReader

MPP = Mpp(0.25, 0.25, "table")
KINDS = {
    "jpeg, shared tables": Kind(shared_tables=True, vendor="aperio"),
    "jpeg without transform": Kind(rgb=True, vendor="aperio"),
    "jpeg 2000 rgb": Kind("j2k-rgb", vendor="aperio"),
    "lzw": Kind("lzw"),
    "deflate": Kind("deflate", tile=(128, 64)),
    "uncompressed": Kind("none"),
}


def tiles_of(path: Path, factor: int) -> tuple[str, np.ndarray, np.ndarray]:
    """The way of reading, the coordinates and the pixels of all tiles at a level's own scale."""
    with open_slide(path) as slide:
        grid = TileGrid.plan(slide.levels, MPP, GridConfig(mpp=0.25 * factor, tile_px=100, overlap_px=20))
        assert grid.read_level == (0 if factor == 1 else 1)
        reader = TileReader(slide, grid, everything(grid))
        assert reader.note == ""
        way = reader.path
        pixels, failed = read_all(reader)
        assert not failed.any()
        return way, grid.coords(np.arange(len(grid))), pixels


@pytest.mark.parametrize("name", KINDS)
def test_the_same_codestreams_give_the_same_tiles(
    name: str, make_slide: Callable[..., Path], tmp_path: Path
) -> None:
    source = make_slide(600, 520, KINDS[name])
    xml = OME.format(root="", body=image_xml(600, 520))
    levels = stored_levels(source)
    # OpenSlide refuses a plain pyramid of JPEG 2000 that is not Aperio's.
    for nested in (True,) if "2000" in name else (True, False):
        other = write_stored(tmp_path / "other.ome.tif", levels, nested=nested, description=xml)
        for factor in (1, 4):
            way, coords, pixels = tiles_of(source, factor)
            other_way, other_coords, other_pixels = tiles_of(other, factor)
            assert (way, other_way) == ("direct", "direct")
            np.testing.assert_array_equal(other_coords, coords)
            np.testing.assert_array_equal(other_pixels, pixels)


@pytest.mark.parametrize("planar", [False, True])
def test_lossless_jpeg_2000_of_bio_formats_is_rgb_whatever_its_number_means(
    tmp_path: Path, planar: bool
) -> None:
    """33003 is Aperio's YCbCr; Bio-Formats and raw2ometiff write RGB under it, or one component a plane."""
    levels = halves(texture(500, 400), 2)
    path = write_nested(
        tmp_path / "a.ome.tif", levels, compression=33003, compressionargs={"reversible": True, "mct": True},
        planar=planar, description=OME.format(root="", body=image_xml(500, 400)),
    )  # fmt: skip
    with open_slide(path) as slide:
        assert (slide.reader, slide.level_count) == ("tifffile", 2)
        np.testing.assert_array_equal(slide.read_region(0, 0, 0, 500, 400), levels[0])
    way, _, pixels = tiles_of(path, 1)
    assert way == ("reader" if planar else "direct")
    np.testing.assert_array_equal(pixels[0], levels[0][:100, :100])


def test_jpeg_2000_that_may_be_rgb_or_ycbcr_is_refused_or_goes_by_its_photometric(tmp_path: Path) -> None:
    levels = halves(texture(300, 260), 2)
    options = {
        "compressionargs": {"mct": False},
        "description": OME.format(root="", body=image_xml(300, 260)),
    }
    path = write_nested(tmp_path / "a.ome.tif", levels, compression=33003, **options)
    with pytest.raises(SlideOpenError, match="its JPEG 2000 tiles may be RGB or YCbCr"):
        open_slide(path)
    with open_slide(write_nested(tmp_path / "b.ome.tif", levels, compression=33005, **options)) as slide:
        difference = np.abs(slide.read_region(0, 0, 0, 300, 260).astype(int) - levels[0])
        assert difference.mean() < 2


@pytest.mark.parametrize("compression", ["jpeg", 33005])
def test_a_damaged_tile_fails_alone_and_is_not_filled_up(tmp_path: Path, compression: int | str) -> None:
    levels = halves(texture(512, 256), 2)
    path = write_nested(tmp_path / "a.tif", levels, compression=compression)
    with open_slide(path) as sound:
        page = sound.pages[0]
        expected = sound.read_region(0, 0, 0, 128, 128)
    content = bytearray(path.read_bytes())
    start, length = page.dataoffsets[1], page.databytecounts[1]
    content[start + length // 2 : start + length] = bytes(length - length // 2)
    path.write_bytes(content)
    with open_slide(path, compare_levels=False) as slide:
        assert slide.reader == "tifffile"
        with pytest.raises(SlideReadError, match="level 0, x 128, y 0"):
            slide.read_region(128, 0, 0, 128, 128)
        np.testing.assert_array_equal(slide.read_region(0, 0, 0, 128, 128), expected)
