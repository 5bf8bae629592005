"""Tiles of small pyramidal slides against full reads by OpenSlide itself, and slides with damaged tiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile

from wsi_ncmi.slides import Mpp, Slide, open_slide
from wsi_ncmi.tiling import (
    GridConfig,
    TileBatch,
    TileGrid,
    TileReader,
    TileSelection,
    read_tile,
    read_tiles,
    select_tiles,
)
from wsi_ncmi.tissue import TissueConfig, TissueMask, segment_tissue

WIDTH, HEIGHT, TILE = 1184, 928, 128
MPP = Mpp(0.25, 0.25, "table")


def texture(width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    base = np.stack(
        [150 + 60 * np.sin(x / 9), 90 + 50 * np.cos(y / 7), 160 + 40 * np.sin((x + y) / 13)], axis=2
    )
    return (base + rng.normal(0, 12, base.shape)).clip(0, 235).astype(np.uint8)


def write(path: Path, compression: str, pixels: np.ndarray) -> Path:
    """Three levels that are subsampled, not averaged: reading the wrong one shows at once."""
    with tifffile.TiffWriter(path) as writer:
        for number, factor in enumerate((1, 4, 16)):
            writer.write(
                pixels[::factor, ::factor].copy(), tile=(TILE, TILE), compression=compression,
                photometric="rgb", metadata=None, subfiletype=int(number > 0),
            )  # fmt: skip
    return path


@pytest.fixture(scope="module", params=["jpeg", "deflate"])
def slide_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Sides divisible by 16, so that every level has an exact downsample.
    return write(tmp_path_factory.mktemp("tiles") / "slide.tif", request.param, texture())


def everything(grid: TileGrid) -> TileSelection:
    indices = np.arange(len(grid), dtype=np.int64)
    return TileSelection(indices, grid.coords(indices), np.ones(len(indices), np.float16))


def read(slide: Slide, grid: TileGrid, selection: TileSelection, batch_size: int = 7) -> TileBatch:
    batches = list(read_tiles(slide, grid, selection, batch_size))
    assert all(0 < len(batch.rows) <= batch_size for batch in batches)
    return TileBatch(
        *(np.concatenate([getattr(b, name) for b in batches]) for name in ("rows", "pixels", "failed"))
    )


def level_of(path: Path, level: int) -> np.ndarray:
    with openslide.OpenSlide(path) as handle:
        return np.asarray(handle.read_region((0, 0), level, handle.level_dimensions[level]).convert("RGB"))


def cell_weights(start: float, scale: float, cells: int, length: int) -> np.ndarray:
    """Dense (cells, length): overlap of cell and pixel over the cell's length."""
    low = (start + np.arange(cells) * scale)[:, None]
    pixel = np.arange(length)[None, :]
    share = (np.minimum(low + scale, pixel + 1) - np.maximum(low, pixel)).clip(0, None)
    return share / share.sum(axis=1, keepdims=True)


def area_mean(image: np.ndarray, x: float, y: float, scale: tuple[float, float], size: int) -> np.ndarray:
    left, top = int(x), int(y)
    part = image[top : int(np.ceil(y + size * scale[1])) + 1, left : int(np.ceil(x + size * scale[0])) + 1]
    rows = cell_weights(y - top, scale[1], size, part.shape[0])
    columns = cell_weights(x - left, scale[0], size, part.shape[1])
    lines = (rows @ part.reshape(len(part), -1)).reshape(size, -1, 3)
    return (columns @ lines).reshape(size, size, 3)


@pytest.mark.parametrize(("target", "level"), [(0.25, 0), (1.0, 1), (4.0, 2)])
def test_tiles_at_a_levels_own_resolution_are_openslides_pixels(
    slide_path: Path, target: float, level: int
) -> None:
    full, size = level_of(slide_path, level), 48 if level else 200
    with open_slide(slide_path) as slide:
        assert slide.reader == "openslide"
        grid = TileGrid.plan(slide.levels, MPP, GridConfig(mpp=target, tile_px=size, overlap_px=13))
        assert grid.read_level == level
        batch = read(slide, grid, everything(grid))
    assert batch.rows.tolist() == list(range(len(grid)))
    assert not batch.failed.any()
    for (x, y), pixels in zip(grid.coords() // 4**level, batch.pixels, strict=True):
        np.testing.assert_array_equal(pixels, full[y : y + size, x : x + size])


@pytest.mark.parametrize(
    ("mpp", "target", "level"),
    [((0.25, 0.25), 0.2506, 0), ((0.25, 0.25), 0.5, 0), ((0.25, 0.25), 0.613, 0), ((0.25, 0.25), 1.37, 1),
     ((0.25, 0.25), 2.0, 1), ((0.25, 0.25), 5.1, 2), ((0.25, 0.31), 0.5, 0), ((0.25, 0.5), 0.5, 0)],
)  # fmt: skip
def test_coarser_tiles_are_area_means_of_openslides_level(
    slide_path: Path, mpp: tuple[float, float], target: float, level: int
) -> None:
    full, size = level_of(slide_path, level).astype(np.uint8), 40 if level else 64
    with open_slide(slide_path) as slide:
        grid = TileGrid.plan(slide.levels, Mpp(*mpp, "table"), GridConfig(mpp=target, tile_px=size))
        assert grid.read_level == level
        batch = read(slide, grid, everything(grid))
    assert len(batch.rows) == len(grid) > 0
    scale = target / mpp[0] / 4**level, target / mpp[1] / 4**level
    for number, pixels in enumerate(batch.pixels):
        row, column = divmod(number, grid.n_columns)
        expected = area_mean(full, column * size * scale[0], row * size * scale[1], scale, size)
        assert np.abs(pixels - expected).max() <= 2.0


def test_the_last_row_and_column_touch_the_border(slide_path: Path) -> None:
    full = level_of(slide_path, 0)
    with open_slide(slide_path) as slide:
        grid = TileGrid.plan(slide.levels, MPP, GridConfig(mpp=0.25, tile_px=16))
        chosen = np.array([len(grid) - 1])
        batch = read(slide, grid, TileSelection(chosen, grid.coords(chosen), np.ones(1, np.float16)))
    assert grid.boxes(chosen).tolist() == [[WIDTH - 16, HEIGHT - 16, WIDTH, HEIGHT]]
    np.testing.assert_array_equal(batch.pixels[0], full[-16:, -16:])


def test_upsampled_tiles_have_the_slides_colours(slide_path: Path) -> None:
    full = level_of(slide_path, 0)
    with open_slide(slide_path) as slide:
        grid = TileGrid.plan(slide.levels, MPP, GridConfig(mpp=0.125, tile_px=64, allow_upsample=True))
        pixels = read_tile(slide, grid, 0)
    np.testing.assert_array_equal(pixels, full[:32, :32].repeat(2, axis=0).repeat(2, axis=1))


def test_only_selected_tiles_are_read_in_their_order(slide_path: Path) -> None:
    with open_slide(slide_path) as slide:
        grid = TileGrid.plan(slide.levels, MPP, GridConfig(mpp=0.5, tile_px=64))
        pixels = np.zeros((HEIGHT // 32, WIDTH // 32), bool)
        pixels[5:20, 3:30] = True
        selection = select_tiles(grid, TissueMask(pixels, 32.0, 32.0, "drawn"), 0.3)
        assert 0 < len(selection) < len(grid)
        batch = read(slide, grid, selection, batch_size=4)
        assert batch.rows.tolist() == list(range(len(selection)))
        for place, index in enumerate(selection.indices):
            np.testing.assert_array_equal(batch.pixels[place], read_tile(slide, grid, int(index)))
        assert (
            list(
                read_tiles(
                    slide, grid, select_tiles(grid, TissueMask(pixels & False, 32.0, 32.0, "x"), 0.3), 4
                )
            )
            == []
        )


def spoil(path: Path, tile: int) -> None:
    with tifffile.TiffFile(path) as file:
        offset, size = file.pages[0].dataoffsets[tile], file.pages[0].databytecounts[tile]
    with path.open("r+b") as handle:
        handle.seek(offset)
        handle.write(b"\x5a" * size)


@pytest.mark.parametrize("compression", ["jpeg", "deflate"])
@pytest.mark.parametrize("target", [0.25, 0.5, 0.61])
def test_a_damaged_tile_costs_its_own_place_only_and_is_never_white(
    tmp_path: Path, compression: str, target: float
) -> None:
    pixels = texture()
    path = write(tmp_path / "damaged.tif", compression, pixels)
    sound = write(tmp_path / "sound.tif", compression, pixels)
    # Stored tile 23 of 10 columns: row 2, column 3.
    spoil(path, 23)
    hole = np.array([3 * TILE, 2 * TILE, 4 * TILE, 3 * TILE])
    with open_slide(path) as slide, open_slide(sound) as whole:
        grid = TileGrid.plan(slide.levels, MPP, GridConfig(mpp=target, tile_px=64))
        batch, expected = (read(each, grid, everything(grid)) for each in (slide, whole))
    boxes = grid.boxes()
    touched = ((boxes[:, :2] < hole[2:]) & (boxes[:, 2:] > hole[:2])).all(axis=1)
    assert 0 < touched.sum() < len(grid)
    np.testing.assert_array_equal(batch.failed, touched)
    assert not expected.failed.any()
    assert (batch.pixels[batch.failed] == 0).all()
    np.testing.assert_array_equal(batch.pixels[~touched], expected.pixels[~touched])


def test_a_damaged_place_is_selected_as_tissue_and_ends_as_a_failed_read(tmp_path: Path) -> None:
    """The whole way: on glass a damaged stored tile must show in the counts, not vanish as background."""
    path = tmp_path / "glass.tif"
    noise = np.random.default_rng(0).normal(243, 2, (1024, 1024, 3)).clip(0, 255).astype(np.uint8)
    tifffile.imwrite(path, noise, tile=(TILE, TILE), compression="deflate", photometric="rgb", metadata=None)
    spoil(path, 27)
    with open_slide(path) as slide:
        mpp = Mpp(0.5, 0.5, "table")
        grid = TileGrid.plan(slide.levels, mpp, GridConfig(mpp=0.5, tile_px=TILE))
        selection = select_tiles(grid, segment_tissue(slide, mpp, TissueConfig()), 0.25)
        assert selection.indices.tolist() == [27]
        (batch,) = read_tiles(slide, grid, selection, 8)
    assert batch.failed.tolist() == [True]


@pytest.mark.real_data
def test_every_selected_tile_of_the_real_slide(real_data: Path) -> None:
    path = real_data / "slides" / "CMU-1-Small-Region.svs"
    full = level_of(path, 0)
    mpp = Mpp(0.499, 0.499, "vendor")
    with open_slide(path) as slide:
        mask = segment_tissue(slide, mpp, TissueConfig())
        native = TileGrid.plan(slide.levels, mpp, GridConfig(mpp=0.499, tile_px=224))
        selection = select_tiles(native, mask, 0.25)
        batch = read(slide, native, selection, 32)
        assert 0.3 < len(selection) / len(native) < 0.6
        for (x, y), pixels in zip(selection.coords, batch.pixels, strict=True):
            np.testing.assert_array_equal(pixels, full[y : y + 224, x : x + 224])

        grid = TileGrid.plan(slide.levels, mpp, GridConfig(mpp=0.5, tile_px=256))
        selection = select_tiles(grid, mask, 0.25)
        batch = read(slide, grid, selection, 32)
        assert not batch.failed.any()
        scale = 0.5 / 0.499
        for index, pixels in zip(selection.indices, batch.pixels, strict=True):
            row, column = divmod(int(index), grid.n_columns)
            left, top = column * 256 * scale, row * 256 * scale
            part = full[int(top) : int(top) + 259, int(left) : int(left) + 259]
            expected = area_mean(part, left % 1, top % 1, (scale, scale), 256)
            assert np.abs(pixels - expected).max() <= 2.0


@pytest.mark.parametrize("threads", [1, 3])
def test_the_first_batch_may_be_of_another_size(slide_path: Path, threads: int) -> None:
    with open_slide(slide_path) as slide:
        grid = TileGrid.plan(slide.levels, MPP, GridConfig(mpp=0.5, tile_px=TILE))
        selection = everything(grid)
        whole = read(slide, grid, selection)
        with TileReader(slide, grid, selection, threads=threads) as reader:
            batches = list(reader.batches(5, first=2))
        with TileReader(slide, grid, selection) as reader, pytest.raises(ValueError, match="1 to 5 tiles"):
            next(reader.batches(5, first=6))
    sizes = [len(batch.rows) for batch in batches]
    assert sizes[0] == 2
    assert set(sizes[1:-1]) == {5}
    assert 1 <= sizes[-1] <= 5
    np.testing.assert_array_equal(np.concatenate([batch.rows for batch in batches]), whole.rows)
    np.testing.assert_array_equal(np.concatenate([batch.pixels for batch in batches]), whole.pixels)
