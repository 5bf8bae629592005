"""Directly decoded pixels against OpenSlide's own, for every way in which a slide can be stored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import openslide
import pytest

from tests.tiling.conftest import Kind, everything, read_all
from wsi_ncmi.slides import Mpp, open_slide
from wsi_ncmi.tiling import GridConfig, TileGrid, TileReader, sources

MPP = Mpp(0.25, 0.25, "table")


def reference(path: Path, level: int) -> np.ndarray:
    """The whole level as OpenSlide gives it, over white."""
    with openslide.OpenSlide(path) as slide:
        rgba = np.asarray(slide.read_region((0, 0), level, slide.level_dimensions[level]))
    alpha = rgba[..., 3:].astype(np.int32)
    return (rgba[..., :3].astype(np.int32) * alpha + 255 * (255 - alpha)) // 255


KINDS = {
    "ycbcr 4:2:0": Kind(),
    "ycbcr 4:2:2": Kind(subsampling="422"),
    "ycbcr 4:4:4": Kind(subsampling="444", quality=95),
    "rgb without transform": Kind(rgb=True),
    "shared tables": Kind(shared_tables=True),
    "aperio, shared tables": Kind(shared_tables=True, vendor="aperio", tile=(240, 240)),
    "aperio, rgb, shared tables": Kind(shared_tables=True, vendor="aperio", rgb=True),
    "aperio jpeg 2000 ycbcr": Kind("j2k-ycbcr", vendor="aperio"),
    "aperio jpeg 2000 rgb": Kind("j2k-rgb", vendor="aperio"),
    "camelyon: bigtiff, 512 px, absent tiles": Kind(tile=(512, 512), absent=frozenset({0, 3}), bigtiff=True),
    "aperio, absent tiles": Kind(vendor="aperio", absent=frozenset({1, 2})),
    "philips, absent tiles": Kind(vendor="philips", absent=frozenset({2}), factors=(1, 2, 4)),
    "lzw": Kind("lzw"),
    "deflate": Kind("deflate", tile=(128, 64)),
    "uncompressed": Kind("none"),
}


@pytest.mark.parametrize("name", KINDS)
def test_native_tiles_are_openslides_pixels(name: str, make_slide: Callable[..., Path]) -> None:
    kind = KINDS[name]
    # Divisible by the factors, so that every level has tiles at its own scale; no multiple of a tile's size.
    path = make_slide(1000, 776, kind)
    with open_slide(path) as slide:
        for level, factor in enumerate(kind.factors):
            expected = reference(path, level)
            for tile_px, overlap_px in ((kind.tile[0], 0), (100, 0), (130, 51)):
                options = GridConfig(mpp=0.25 * factor, tile_px=tile_px, overlap_px=overlap_px)
                grid = TileGrid.plan(slide.levels, MPP, options)
                if not len(grid):
                    continue
                assert grid.native
                reader = TileReader(slide, grid, everything(grid))
                # OpenSlide renders holes of an Aperio pyramid from the finer level: left to it.
                holes = kind.vendor == "aperio" and bool(kind.absent) and level > 0
                assert reader.path == ("reader" if holes else "direct"), (reader.reason, reader.note)
                assert "differ" not in reader.note
                assert grid.read_level == level
                pixels, failed = read_all(reader)
                assert not failed.any()
                for (x, y, right, bottom), tile in zip(grid.level_boxes().astype(int), pixels, strict=True):
                    # JPEG 2000 in YCbCr: two roundings of the colour transform; all others are identical.
                    limit = 1 if kind.compression == "j2k-ycbcr" else 0
                    assert np.abs(expected[y:bottom, x:right] - tile).max() <= limit


@pytest.mark.parametrize(
    "name", ["ycbcr 4:2:0", "aperio, shared tables", "camelyon: bigtiff, 512 px, absent tiles"]
)
@pytest.mark.parametrize("target", [0.2501, 0.27, 0.5, 0.613, 1.0, 1.7])
def test_resampled_tiles_are_area_means_of_openslides_level(
    name: str, target: float, make_slide: Callable[..., Path]
) -> None:
    path = make_slide(1003, 779, KINDS[name])
    with open_slide(path) as slide:
        grid = TileGrid.plan(slide.levels, MPP, GridConfig(mpp=target, tile_px=64, overlap_px=5))
        expected = reference(path, grid.read_level)
        for route, allowed in (("auto", 0.501), ("reader", 0.501)):
            if route == "reader" and slide.levels[grid.read_level].downsample_x % 1:
                continue  # OpenSlide interpolates there between pixels; the direct path has no need to
            pixels, failed = read_all(TileReader(slide, grid, everything(grid), path=route))
            assert not failed.any()
            for box, tile in zip(grid.level_boxes(), pixels, strict=True):
                assert np.abs(area_mean(expected, box, 64) - tile).max() <= allowed


@pytest.mark.parametrize("stored_px", [64, 48])
@pytest.mark.parametrize(("factor", "overlap_px"), [(2, 0), (2, 13), (4, 5), (8, 0), (16, 3)])
def test_means_of_stored_tiles_are_the_bits_of_means_of_regions(
    stored_px: int, factor: int, overlap_px: int, make_slide: Callable[..., Path], monkeypatch
) -> None:
    path = make_slide(779, 603, Kind(tile=(stored_px, stored_px), factors=(1,), absent=frozenset({3})))
    with open_slide(path) as slide:
        options = GridConfig(mpp=0.25 * factor, tile_px=32, overlap_px=overlap_px)
        grid = TileGrid.plan(slide.levels, MPP, options)
        with TileReader(slide, grid, everything(grid)) as reader:
            assert reader._source._block == factor
        means, failed = read_all(TileReader(slide, grid, everything(grid), threads=2))
        assert not failed.any()
        monkeypatch.setattr("wsi_ncmi.tiling.reader.WHOLE_FACTORS", ())
        monkeypatch.setattr("wsi_ncmi.tiling.area.WHOLE_FACTORS", ())  # sparse products
        regions, _ = read_all(TileReader(slide, grid, everything(grid)))
    np.testing.assert_array_equal(means, regions)


def area_mean(level: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """Area average by differences of the exactly integrated image: shares no code with the package."""
    x, y = int(box[0]), int(box[1])
    part = level[y : int(box[3]) + 2, x : int(box[2]) + 2]
    box = box - (x, y, x, y)
    height, width = part.shape[:2]
    table = np.zeros((height + 2, width + 2, 3))
    padded = np.pad(part, ((0, 1), (0, 1), (0, 0)), mode="edge")
    table[1:, 1:] = padded.cumsum(axis=0, dtype=np.float64).cumsum(axis=1)
    xs, ys = np.linspace(box[0], box[2], size + 1), np.linspace(box[1], box[3], size + 1)

    def at(table: np.ndarray, edges: np.ndarray) -> np.ndarray:
        low = np.minimum(edges.astype(int), len(table) - 2)
        part = (edges - low)[:, None, None]
        return table[low] * (1 - part) + table[low + 1] * part

    both = at(at(table, ys).transpose(1, 0, 2), xs).transpose(1, 0, 2)
    area = (xs[1] - xs[0]) * (ys[1] - ys[0])
    return np.diff(np.diff(both, axis=0), axis=1) / area


@pytest.mark.parametrize(("target", "overlap_px"), [(0.25, 0), (0.25, 13), (0.3, 20), (0.5, 13)])
@pytest.mark.parametrize("cache_tiles", [None, 3])
def test_threads_and_batches_change_nothing(
    target: float, overlap_px: int, cache_tiles: int | None, make_slide: Callable[..., Path], monkeypatch
) -> None:
    """With threads a batch is begun before the one before it is given out, and the cache may forget its tiles."""
    path = make_slide(1003, 779, Kind(tile=(64, 64), factors=(1,)))
    options = GridConfig(mpp=target, tile_px=64, overlap_px=overlap_px)
    with open_slide(path) as slide:
        grid = TileGrid.plan(slide.levels, MPP, options)
        one, _ = read_all(TileReader(slide, grid, everything(grid)), batch_size=1)
        if cache_tiles is not None:
            monkeypatch.setattr(sources, "CACHE_BYTES", cache_tiles * 64 * 64 * 3)
        for threads, batch_size in ((1, 50), (2, 1), (3, 7), (3, 64), (2, 1000)):
            reader = TileReader(slide, grid, everything(grid), threads=threads)
            assert reader.path == "direct"
            pixels, failed = read_all(reader, batch_size)
            assert not failed.any()
            assert np.array_equal(one, pixels)


def test_a_reader_may_be_left_in_the_middle(make_slide: Callable[..., Path]) -> None:
    with open_slide(make_slide(1003, 779, Kind(tile=(64, 64), factors=(1,)))) as slide:
        grid = TileGrid.plan(slide.levels, MPP, GridConfig(mpp=0.25, tile_px=64))
        whole, _ = read_all(TileReader(slide, grid, everything(grid)))
        with TileReader(slide, grid, everything(grid), threads=2) as reader:
            batch = next(reader.batches(20))
        assert np.array_equal(batch.pixels, whole[:20])


def test_a_selection_reads_the_same_pixels_as_everything(make_slide: Callable[..., Path]) -> None:
    path = make_slide(1003, 779, Kind(tile=(128, 128)))
    with open_slide(path) as slide:
        grid = TileGrid.plan(slide.levels, MPP, GridConfig(mpp=0.25, tile_px=100))
        whole, _ = read_all(TileReader(slide, grid, everything(grid)))
        some = everything(grid)
        chosen = np.array([3, 17, 18, 40])
        part = type(some)(chosen, grid.coords(chosen), some.tissue_fraction[chosen])
        pixels, _ = read_all(TileReader(slide, grid, part))
    assert np.array_equal(pixels, whole[chosen])


@pytest.mark.real_data
@pytest.mark.parametrize("overlap_px", [0, 37])
def test_every_native_tile_of_the_real_slide(real_data: Path, overlap_px: int) -> None:
    path = real_data / "slides" / "CMU-1-Small-Region.svs"
    expected = reference(path, 0)
    with open_slide(path) as slide:
        mpp = Mpp(0.499, 0.499, "vendor")
        grid = TileGrid.plan(slide.levels, mpp, GridConfig(mpp=0.499, tile_px=240, overlap_px=overlap_px))
        reader = TileReader(slide, grid, everything(grid))
        assert reader.path == "direct"
        pixels, failed = read_all(reader)
    assert len(pixels) >= 108
    assert not failed.any()
    for (x, y, right, bottom), tile in zip(grid.level_boxes().astype(int), pixels, strict=True):
        assert np.array_equal(expected[y:bottom, x:right], tile)


@pytest.mark.real_data
@pytest.mark.parametrize("target", [0.5, 0.998, 1.3])
def test_resampled_tiles_of_the_real_slide(real_data: Path, target: float) -> None:
    path = real_data / "slides" / "CMU-1-Small-Region.svs"
    expected = reference(path, 0)
    with open_slide(path) as slide:
        grid = TileGrid.plan(slide.levels, Mpp(0.499, 0.499, "vendor"), GridConfig(mpp=target, tile_px=224))
        for route in ("auto", "reader"):
            pixels, _ = read_all(TileReader(slide, grid, everything(grid), path=route))
            for box, tile in zip(grid.level_boxes(), pixels, strict=True):
                assert np.abs(area_mean(expected, box, 224) - tile).max() <= 0.501
