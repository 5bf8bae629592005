"""Which tiles are read."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_ncmi.slides import Level, Mpp
from wsi_ncmi.tiling import GridConfig, TileGrid, select_tiles
from wsi_ncmi.tiling import grid as tile_grid
from wsi_ncmi.tissue import TissueMask

GRID = TileGrid.plan([Level(2048, 1024, 1.0, 1.0)], Mpp(0.5, 0.5, "t"), GridConfig(mpp=0.5))  # 8 × 4 tiles


def columns_mask(shares: list[float], step: int = 1) -> TissueMask:
    """A mask of 1-px columns whose tile column k is tissue by the share given, from its left side."""
    pixels = np.zeros((1024 // step, 2048 // step), bool)
    for number, share in enumerate(shares):
        pixels[:, number * 256 // step : round((number * 256 + 256 * share) / step)] = True
    return TissueMask(pixels, float(step), float(step), "drawn")


def test_the_limit_belongs_to_the_selection() -> None:
    chosen = select_tiles(GRID, columns_mask([0.0, 0.246, 0.25, 0.254, 1.0]), 0.25)
    assert sorted(set(chosen.coords[:, 0].tolist())) == [512, 768, 1024]
    assert len(chosen) == 12
    assert chosen.tissue_fraction.dtype == np.float16
    np.testing.assert_allclose(chosen.tissue_fraction[:3], [0.25, 0.254, 1.0], atol=1e-3)


def test_a_share_that_only_rounds_to_the_limit_is_left_out() -> None:
    # 0.2499 becomes 0.25 as float16 with its 11 bits.
    pixels = np.zeros((1024, 2048), bool)
    pixels.ravel()[np.flatnonzero(np.ones((256, 256), bool))] = False
    tile = np.zeros(256 * 256, bool)
    tile[: 256 * 64 - 1] = True
    pixels[:256, :256] = tile.reshape(256, 256)
    mask = TissueMask(pixels, 1.0, 1.0, "drawn")
    assert np.float16(mask.fraction_in(GRID.boxes(np.array([0])))[0]) == np.float16(0.25)
    assert len(select_tiles(GRID, mask, 0.25)) == 0


def test_tiles_are_in_raster_order_with_their_rounded_corners() -> None:
    chosen = select_tiles(GRID, columns_mask([1.0] * 8), 0.5)
    assert chosen.indices.tolist() == list(range(32))
    np.testing.assert_array_equal(chosen.coords, GRID.coords())
    assert (chosen.tissue_fraction == 1.0).all()


def test_glass_is_never_chosen_even_without_a_limit() -> None:
    chosen = select_tiles(GRID, columns_mask([0.0, 0.01, 1.0, 0.0]), 0.0)
    assert sorted(set(chosen.coords[:, 0].tolist())) == [256, 512]


def test_wholly_covered_tiles_pass_the_limit_of_one() -> None:
    # Downsamples that are no binary fractions: the sums are rounded.
    grid = TileGrid.plan([Level(30_000, 30_000, 1.0, 1.0)], Mpp(0.243, 0.243, "t"), GridConfig(mpp=0.5))
    mask = TissueMask(np.ones((911, 913), bool), 30_000 / 913, 30_000 / 911, "drawn")
    assert len(select_tiles(grid, mask, 1.0)) == len(grid) > 3000


def test_no_tissue_and_no_tiles_are_empty_selections() -> None:
    tiny = TileGrid.plan([Level(100, 100, 1.0, 1.0)], Mpp(0.5, 0.5, "t"), GridConfig(mpp=0.5))
    for grid in (GRID, tiny):
        chosen = select_tiles(grid, TissueMask(np.zeros((10, 10), bool), 204.8, 102.4, "drawn"), 0.25)
        assert (len(chosen), chosen.coords.shape, chosen.tissue_fraction.shape) == (0, (0, 2), (0,))
        assert chosen.indices.dtype == np.int64


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.95), st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_parts_of_any_size_choose_the_same_tiles(seed: int, limit: float, part: int) -> None:
    pixels = np.random.default_rng(seed).random((16, 32)) < 0.5
    mask = TissueMask(pixels, 64.0, 64.0, "drawn")
    expected = np.flatnonzero(mask.fraction_in(GRID.boxes()) >= limit)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tile_grid, "_BOXES", part)
        assert select_tiles(GRID, mask, limit).indices.tolist() == expected.tolist()
