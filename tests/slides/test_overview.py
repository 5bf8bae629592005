"""Pictures of whole slides."""

from __future__ import annotations

import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_ncmi.core.errors import SlideReadError
from wsi_ncmi.slides import Level, LevelReader, Slide, open_slide, read_overview, thumbnail
from wsi_ncmi.slides import overview as overview_module
from wsi_ncmi.slides.absent_tiles import find_absent_tiles


class _Memory(Slide):
    """A slide whose pixels are computed, with places that fail."""

    def __init__(self, pixels=None, sides=None, bad=()):
        self.pixels, self.bad, self.largest = pixels, bad, 0
        width, height = sides or (pixels.shape[1], pixels.shape[0])
        super().__init__(
            Path("m"), reader="memory", vendor="", levels=[Level(width, height, 1.0, 1.0)], properties={}
        )

    def _read(self, x, y, level, width, height):
        self.largest = max(self.largest, width * height)
        for bad_x, bad_y in self.bad:
            if x <= bad_x < x + width and y <= bad_y < y + height:
                raise OSError("bad tile")
        if self.pixels is None:
            return np.full((height, width, 3), 100, np.uint8)
        assert y + height <= self.pixels.shape[0]
        assert x + width <= self.pixels.shape[1]
        return self.pixels[y : y + height, x : x + width].copy()


def _slow_mean(pixels, width, height):
    """Area average by the book: every output pixel, every source pixel."""
    rows = _weights(pixels.shape[0], height)
    columns = _weights(pixels.shape[1], width)
    return np.einsum("ai,bj,ijc->abc", rows, columns, pixels.astype(np.float64), optimize=True)


def _weights(source, target):
    weights = np.zeros((target, source))
    for out in range(target):
        start, stop = out * source / target, (out + 1) * source / target
        for index in range(source):
            weights[out, index] = max(0.0, min(stop, index + 1) - max(start, index)) / (stop - start)
    return weights


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.data())
def test_every_pixel_is_the_area_mean(width, height, data):
    out = data.draw(st.integers(1, width)), data.draw(st.integers(1, height))
    pixels = np.random.default_rng(width * 100 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    overview = read_overview(_Memory(pixels), *out)
    assert overview.pixels.shape == (out[1], out[0], 3)
    assert np.abs(overview.pixels - _slow_mean(pixels, *out)).max() <= 0.5 + 1e-3
    assert (overview.downsample_x, overview.downsample_y) == (width / out[0], height / out[1])
    assert overview.readable.all()


def test_the_seams_of_blocks_do_not_show():
    pixels = np.random.default_rng(0).integers(0, 256, (1100, 2100, 3), dtype=np.uint8)
    overview = read_overview(_Memory(pixels), 213, 77)
    assert np.abs(overview.pixels - _slow_mean(pixels, 213, 77)).max() <= 0.5 + 1e-3


def test_native_size_is_a_copy(generic, kit):
    with open_slide(generic) as slide:
        np.testing.assert_array_equal(read_overview(slide, 700, 600).pixels, kit.texture())
        np.testing.assert_array_equal(thumbnail(slide, 5000), kit.texture())


def test_the_coarsest_level_that_is_fine_enough_is_used(generic, kit):
    with open_slide(generic) as slide:
        np.testing.assert_array_equal(thumbnail(slide, 350), kit.texture()[::2, ::2])
        assert np.abs(thumbnail(slide, 351) - _slow_mean(kit.texture(), 351, 301)).max() <= 0.5 + 1e-3


@pytest.mark.parametrize(
    ("sides", "shape"),
    [((700, 600), (86, 100)), ((100, 1000), (100, 10)), ((3000, 2), (1, 100)), ((50, 20), (20, 50))],
)
def test_thumbnails_keep_the_aspect_and_never_enlarge(sides, shape):
    assert thumbnail(_Memory(sides=sides), 100).shape == (*shape, 3)


@pytest.mark.parametrize("size", [(0, 1), (1, 0), (701, 1), (1, 601)])
def test_impossible_sizes(generic, size):
    with open_slide(generic) as slide:
        with pytest.raises(ValueError, match="can't have"):
            read_overview(slide, *size)
        with pytest.raises(ValueError, match="at least 1"):
            thumbnail(slide, 0)


def test_a_bad_place_is_marked_grey_and_costs_only_itself(caplog):
    pixels = np.full((600, 2000, 3), 200, np.uint8)
    overview = read_overview(_Memory(pixels, bad=[(1500, 300)]), 200, 60)
    broken = ~overview.readable
    rows, columns = np.nonzero(broken)
    assert broken[30, 150]
    assert (rows.max() - rows.min() + 1, columns.max() - columns.min() + 1) <= (14, 14)
    assert (overview.pixels[broken] == 128).all()
    assert (overview.pixels[~broken] == 200).all()
    assert "bad tile" in caplog.text
    assert overview.note == ""


def test_a_bad_place_of_a_level_is_the_mean_of_the_next_finer_one():
    class Pyramid(_Memory):
        def _read(self, x, y, level, width, height):
            if level == 2 and x // 5 <= 150 < x // 5 + width and y // 5 <= 150 < y // 5 + height:
                raise OSError("bad tile")
            factor = (1, 2, 5)[level]
            part = np.full((height, width, 3), 10 + 50 * level, np.uint8)
            part[:, : max(0, 700 // factor - x // factor)] += 100
            return part

    slide = Pyramid(sides=(1100, 950))
    levels = [Level(-(-1100 // f), -(-950 // f), 1100 / -(-1100 // f), 950 / -(-950 // f)) for f in (1, 2, 5)]
    slide._kept_levels = slide.reader_levels = tuple(levels)
    slide._numbers = (0, 1, 2)
    seen = read_overview(slide, 110, 95)
    values = np.unique(seen.pixels)
    assert {60, 110, 160, 210} <= set(values.tolist())
    assert seen.readable.all()
    # Right of the edge at 700 px: the coarsest level above, the next one where that can't be read.
    assert seen.pixels[5, 100, 0] == 110
    assert seen.pixels[90, 100, 0] == 60
    assert seen.pixels[90, 66, 0] == 160
    assert "of the level of 220 × 190 px can't be read and was taken from finer ones" in seen.note


def test_a_slide_of_which_nothing_can_be_read_is_an_error(tmp_path, kit, svs):
    path = tmp_path / "spoilt.svs"
    shutil.copy(svs, path)
    for number in range(len(kit.level0_table(path)[0])):
        kit.spoil_tile(path, number)
    with open_slide(path) as slide, pytest.raises(SlideReadError, match="level 0"):
        thumbnail(slide, 500)


def test_a_huge_level_is_read_in_bounded_memory():
    slide = _Memory(sides=(20_000, 3_000))
    tracemalloc.start()
    try:
        picture = thumbnail(slide, 200)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (picture == 100).all()
    assert slide.largest <= 1024 * 1024
    assert peak < 60e6  # the level itself has 180 MB


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.sampled_from([4, 8, 32]), st.data())
def test_bands_and_blocks_leave_no_trace(width, height, block, data):
    """Blocks of a few pixels: cells that are cut by their borders, or larger than a block, in every mixture."""
    out = data.draw(st.integers(1, width)), data.draw(st.integers(1, height))
    pixels = np.random.default_rng(width * 100 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overview_module, "_BLOCK_PX", block)
        result = read_overview(_Memory(pixels), *out)
    assert np.abs(result.pixels - _slow_mean(pixels, *out)).max() <= 0.5 + 1e-3


@settings(max_examples=40, deadline=None)
@given(st.integers(20, 60), st.integers(20, 60), st.data())
def test_a_bad_place_in_any_block_spoils_only_cells_of_its_smallest_part(width, height, data):
    out = data.draw(st.integers(1, width)), data.draw(st.integers(1, height))
    bad = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    pixels = np.random.default_rng(width * 100 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overview_module, "_BLOCK_PX", 16)
        patch.setattr(overview_module, "_SMALLEST_BLOCK_PX", 4)
        try:
            result = read_overview(_Memory(pixels, bad=[bad]), *out)
        except SlideReadError:
            assert width <= 4
            return
    expected = _slow_mean(pixels, *out)
    # The quarter of a quarter that holds the place, widened to whole cells.
    across = _weights(width, out[0])[:, bad[0] // 4 * 4 : bad[0] // 4 * 4 + 4].any(axis=1)
    down = _weights(height, out[1])[:, bad[1] // 4 * 4 : bad[1] // 4 * 4 + 4].any(axis=1)
    spoilt = np.outer(down, across)
    np.testing.assert_array_equal(result.readable, ~spoilt)
    assert np.abs(result.pixels - expected)[~spoilt].max(initial=0) <= 0.5 + 1e-3
    assert (result.pixels[spoilt] == 128).all()


def test_the_memory_is_that_of_the_picture():
    slide = _Memory(sides=(6_000, 4_500))
    tracemalloc.start()
    try:
        picture = read_overview(slide, 3_500, 2_500).pixels
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (picture == 100).all()
    # The picture with its masks takes 44 MB; sums of all of it would take 210 MB more.
    assert peak < 140e6


@pytest.mark.parametrize("size", [(640, 512), (333, 277), (90, 72), (7, 5)])
def test_absent_tiles_are_background_without_being_read(tmp_path, kit, size, monkeypatch):
    pixels = kit.texture(640, 512)
    pixels[:128, 256:384] = 100  # a few bytes when compressed, but stored
    absent = {0, 1, 5, 6, 8, 9, 13, 14, 19}
    path = kit.write_sparse_tiff(tmp_path / "sparse.tif", pixels, absent)
    monkeypatch.setattr(overview_module, "_BLOCK_PX", 128)
    monkeypatch.setattr(overview_module, "StoredRegions", LevelReader)
    asked = []
    honest = Slide.read_region

    def counting(self, x, y, *rest):
        asked.append((y // 128) * 5 + x // 128)
        return honest(self, x, y, *rest)

    monkeypatch.setattr(Slide, "read_region", counting)
    with open_slide(path) as slide:
        found = read_overview(slide, *size)
        assert not absent & set(asked)
        assert len(asked) == 20 - len(absent)
        monkeypatch.setattr(overview_module, "find_absent_tiles", lambda slide, level: None)
        np.testing.assert_array_equal(read_overview(slide, *size).pixels, found.pixels)
        assert len(asked) == 40 - len(absent)
    assert (found.pixels[0, 0] == 255).all() or size == (7, 5)


def test_absent_tiles_are_believed_only_where_the_directory_fits(tmp_path, kit, svs, generic):
    path = kit.write_sparse_tiff(tmp_path / "sparse.tif", kit.texture(), {0, 7})
    with open_slide(path) as slide:
        absent = find_absent_tiles(slide, 0)
        assert absent is not None
        assert absent.cover(0, 0, 128, 128)
        assert not absent.cover(0, 0, 129, 128)
        assert absent.cover(140, 150, 20, 30)
        assert not absent.cover(127, 150, 20, 30)
        other = _Memory(sides=(704, 600))
        other.vendor, other.path = "generic-tiff", path
        assert find_absent_tiles(other, 0) is None  # another size
        slide.vendor = "aperio"  # holes are drawn from finer levels there
        assert find_absent_tiles(slide, 0) is None
    with open_slide(svs) as slide:
        assert find_absent_tiles(slide, 0) is None
    with open_slide(generic) as slide:
        assert find_absent_tiles(slide, 0) is None  # nothing is absent
