"""Damaged files: a read that fails is marked, its pixels are zeros, and everything else stays right."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from tests.tiling.conftest import Kind, everything, read_all
from wsi_ncmi.core.errors import SlideError
from wsi_ncmi.slides import Mpp, open_slide
from wsi_ncmi.slides.openslide_reader import OpenSlideSlide
from wsi_ncmi.tiling import GridConfig, TileGrid, TileReader, TileSelection, read_tile

MPP = Mpp(0.25, 0.25, "table")
ONE_LEVEL = Kind(factors=(1,))


def read(
    path: Path, options: GridConfig, route: str = "auto", damage: Callable[[], object] = lambda: None
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], str]:
    # open_slide refuses files that are not whole; damage can also come between the opening and a read.
    with OpenSlideSlide(path) as slide:
        damage()
        grid = TileGrid.plan(slide.levels, MPP, options)
        reader = TileReader(slide, grid, everything(grid), path=route)
        return *read_all(reader), reader.path


def stored(path: Path) -> tuple[tuple[int, ...], tuple[int, ...]]:
    with tifffile.TiffFile(path) as file:
        return file.pages.first.dataoffsets, file.pages.first.databytecounts


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def cut_short(stream: bytes) -> bytes:
    """The stream ends in its middle; what follows is padding."""
    return stream[: len(stream) // 2] + b"\xff\xd9" + bytes(len(stream) - len(stream) // 2 - 2)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "zeros": lambda stream: bytes(len(stream)),
    "text": lambda stream: (b"no jpeg at all. " * len(stream))[: len(stream)],
    "ends early": cut_short,
    "no tables": lambda stream: stream[:20] + bytes(len(stream) - 20),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(("target", "overlap_px"), [(0.25, 0), (0.25, 19), (0.31, 0)])
def test_a_damaged_tile_fails_what_touches_it_and_nothing_else(
    damage: str, target: float, overlap_px: int, make_slide: Callable[..., Path]
) -> None:
    path = make_slide(1024, 1024, ONE_LEVEL)
    options = GridConfig(mpp=target, tile_px=256, overlap_px=overlap_px)
    sound, none_failed, _ = read(path, options)
    assert not none_failed.any()
    offsets, counts = stored(path)
    bad = 5  # second row, second column
    content = path.read_bytes()[offsets[bad] : offsets[bad] + counts[bad]]
    overwrite(path, offsets[bad], DAMAGES[damage](content))

    pixels, failed, way = read(path, options)
    with open_slide(path) as slide:
        boxes = TileGrid.plan(slide.levels, MPP, options).level_boxes()
    touched = (boxes[:, 0] < 512) & (boxes[:, 2] > 256) & (boxes[:, 1] < 512) & (boxes[:, 3] > 256)
    assert way == "direct"
    assert np.array_equal(failed, touched)
    assert not pixels[failed].any()
    assert np.array_equal(pixels[~failed], sound[~failed])


@pytest.mark.parametrize("damage", ["zeros", "text"])
def test_the_reader_path_marks_it_too(damage: str, make_slide: Callable[..., Path]) -> None:
    path = make_slide(1024, 1024, ONE_LEVEL)
    offsets, counts = stored(path)
    overwrite(path, offsets[5], DAMAGES[damage](bytes(counts[5])))
    pixels, failed, _ = read(path, GridConfig(mpp=0.25, tile_px=256), "reader")
    assert np.flatnonzero(failed).tolist() == [5]
    assert not pixels[5].any()


def test_a_jpeg_of_another_size_is_no_tile(make_slide: Callable[..., Path]) -> None:
    path = make_slide(1024, 1024, ONE_LEVEL)
    (path.parent / "other").mkdir()
    offsets, counts = stored(path)
    from tests.tiling.conftest import _encode, texture

    small = _encode(texture(128, 128), Kind(quality=30))
    assert len(small) < counts[5]
    overwrite(path, offsets[5], small)
    _, failed, _ = read(path, GridConfig(mpp=0.25, tile_px=256))
    assert np.flatnonzero(failed).tolist() == [5]


def test_truncation_anywhere_never_gives_wrong_tiles(make_slide: Callable[..., Path]) -> None:
    path = make_slide(700, 600, Kind(tile=(128, 128), factors=(1, 2)))
    options = GridConfig(mpp=0.25, tile_px=100)
    sound, _, _ = read(path, options)
    content = path.read_bytes()
    ways: Counter[str] = Counter()
    n_failed = []
    for cut in np.random.default_rng(0).integers(1, len(content), 50).tolist():
        path.write_bytes(content)
        pixels, failed, way = read(path, options, damage=lambda cut=cut: os.truncate(path, cut))
        assert np.array_equal(pixels[~failed], sound[~failed])
        assert not pixels[failed].any()
        ways[way] += 1
        n_failed.append(failed.sum())
    assert min(n_failed) == 0  # only the second level is cut
    assert max(n_failed) == len(sound)
    assert len(set(n_failed)) > 10
    assert ways["direct"] >= 5


@pytest.mark.parametrize("offset", [0, 7, 2**31, 2**32 - 1])
def test_bad_offsets_fail_their_tile(offset: int, make_slide: Callable[..., Path]) -> None:
    path = make_slide(1024, 1024, ONE_LEVEL)
    sound, _, _ = read(path, GridConfig(mpp=0.25, tile_px=256))
    with tifffile.TiffFile(path) as file:
        table = file.pages.first.tags["TileOffsets"].valueoffset
    pixels, failed, way = read(
        path, GridConfig(mpp=0.25, tile_px=256),
        damage=lambda: overwrite(path, table + 4 * 6, int(offset).to_bytes(4, "little")),
    )  # fmt: skip
    assert way == "direct"
    assert np.flatnonzero(failed).tolist() == [6]
    assert np.array_equal(pixels[~failed], sound[~failed])


class _DarkerReader(OpenSlideSlide):
    """A reader with pixels of its own: three grey levels darker, as another decoder or colour transform."""

    def _read(self, *request: int) -> NDArray[np.uint8]:
        pixels = super()._read(*request).copy()
        pixels[..., :3] -= np.minimum(pixels[..., :3], 3)
        return pixels


def test_other_pixels_than_the_readers_are_refused(make_slide: Callable[..., Path]) -> None:
    path = make_slide(700, 600, Kind(tile=(128, 128)))
    with _DarkerReader(path) as slide:
        grid = TileGrid.plan(slide.levels, MPP, GridConfig(mpp=0.25, tile_px=128))
        reader = TileReader(slide, grid, everything(grid))
        assert reader.path == "reader"
        assert "differ from openslide's pixels by 3 grey levels" in reader.note
        assert "3 grey levels" in reader.reason
        pixels, failed = read_all(reader)
        assert not failed.any()
        assert np.array_equal(pixels[0], slide.read_region(0, 0, 0, 128, 128))


def test_a_single_tile_and_its_failure(make_slide: Callable[..., Path]) -> None:
    path = make_slide(1024, 1024, ONE_LEVEL)
    offsets, counts = stored(path)
    overwrite(path, offsets[5], bytes(counts[5]))
    with open_slide(path) as slide:
        grid = TileGrid.plan(slide.levels, MPP, GridConfig(mpp=0.25, tile_px=256))
        assert np.array_equal(read_tile(slide, grid, 6), slide.read_region(512, 256, 0, 256, 256))
        with pytest.raises(SlideError, match=path.name):
            read_tile(slide, grid, 5)


def test_nothing_selected_gives_no_batches(make_slide: Callable[..., Path]) -> None:
    path = make_slide(700, 600, ONE_LEVEL)
    with open_slide(path) as slide:
        grid = TileGrid.plan(slide.levels, MPP, GridConfig(mpp=0.25, tile_px=128))
        none = TileSelection(np.empty(0, np.int64), np.empty((0, 2), np.int64), np.empty(0, np.float16))
        with TileReader(slide, grid, none) as reader:
            assert list(reader.batches(8)) == []


def test_chosen_tiles_that_the_file_does_not_store_are_said(make_slide: Callable[..., Path]) -> None:
    """Filled holes of a mask may hold absent tiles: background is what OpenSlide gives, and the ledger knows."""
    path = make_slide(1024, 1024, Kind(factors=(1,), absent=frozenset({5, 6, 9})))
    with open_slide(path) as slide:
        for tile_px, expected in ((256, 3), (128, 12), (300, 0)):
            grid = TileGrid.plan(slide.levels, MPP, GridConfig(mpp=0.25, tile_px=tile_px))
            reader = TileReader(slide, grid, everything(grid))
            pixels, failed = read_all(reader)
            assert not failed.any()
            assert (pixels == 255).all(axis=(1, 2, 3)).sum() == expected
            assert reader.note == (
                f"{expected} of {len(grid)} chosen tiles are not stored in the file and are background"
                if expected
                else ""
            )
