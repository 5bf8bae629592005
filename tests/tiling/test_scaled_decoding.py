"""Reduction by the JPEG decoder itself: only where it is asked for, near the area mean, in the right place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.tiling.conftest import Kind, everything, read_all
from wsi_ncmi.slides import Mpp, open_slide
from wsi_ncmi.slides.stored import open_stored_tiles
from wsi_ncmi.tiling import GridConfig, TileGrid, TileReader

MPP = Mpp(0.25, 0.25, "table")
ONE_LEVEL = Kind(factors=(1,), quality=95)


def both(
    path: Path, target: float, tile_px: int = 64, overlap_px: int = 0
) -> tuple[np.ndarray, np.ndarray, int]:
    """Exact and scaled pixels of all tiles, and the decoder's factor."""
    with open_slide(path) as slide:
        options = {"mpp": target, "tile_px": tile_px, "overlap_px": overlap_px}
        grid = TileGrid.plan(slide.levels, MPP, GridConfig(**options))
        exact, none_failed = read_all(TileReader(slide, grid, everything(grid)))
        grid = TileGrid.plan(slide.levels, MPP, GridConfig(**options, scaled_decoding=True))
        reader = TileReader(slide, grid, everything(grid))
        assert reader.path == "direct"
        assert not reader.note
        factor = reader.decoding_factor
        scaled, failed = read_all(reader)
    assert not failed.any()
    assert not none_failed.any()
    assert exact.shape == scaled.shape
    return exact.astype(int), scaled.astype(int), factor


@pytest.mark.parametrize(
    ("target", "overlap_px", "factor"),
    [
        (0.25, 0, 1),
        (0.45, 0, 1),
        (0.5, 0, 2),
        (0.5, 13, 2),
        (0.61, 5, 2),
        (1.0, 7, 4),
        (1.3, 0, 4),
        (2.0, 0, 8),
        (2.7, 3, 8),
    ],
)
def test_scaled_tiles_are_near_the_exact_ones(
    target: float, overlap_px: int, factor: int, make_slide: Callable[..., Path]
) -> None:
    exact, scaled, found = both(make_slide(1003, 779, ONE_LEVEL), target, overlap_px=overlap_px)
    assert found == factor
    if factor == 1:
        assert np.array_equal(exact, scaled)
        return
    difference = np.abs(exact - scaled)
    assert 0 < difference.mean() < 2.5
    # In the right place: moved by a pixel they would differ several times as much.
    moved = np.abs(exact[:, :, 1:] - scaled[:, :, :-1]).mean(), np.abs(exact[:, 1:] - scaled[:, :-1]).mean()
    assert min(moved) > 3 * difference.mean()


def test_it_is_off_unless_asked_for(make_slide: Callable[..., Path]) -> None:
    assert not GridConfig().scaled_decoding
    with open_slide(make_slide(512, 512, ONE_LEVEL)) as slide:
        grid = TileGrid.plan(slide.levels, MPP, GridConfig(mpp=0.5, tile_px=64))
        with TileReader(slide, grid, everything(grid)) as reader:
            assert (reader.path, reader.decoding_factor) == ("direct", 1)


@pytest.mark.parametrize(
    "kind", [Kind("deflate", factors=(1,)), Kind("j2k-rgb", vendor="aperio", factors=(1,))]
)
def test_other_compressions_stay_exact(kind: Kind, make_slide: Callable[..., Path]) -> None:
    exact, scaled, factor = both(make_slide(700, 600, kind), 0.5)
    assert factor == 1
    assert np.array_equal(exact, scaled)


def test_the_pyramid_comes_first(make_slide: Callable[..., Path]) -> None:
    with open_slide(make_slide(1024, 1024, Kind(factors=(1, 4)))) as slide:
        grid = TileGrid.plan(slide.levels, MPP, GridConfig(mpp=1.5, tile_px=64, scaled_decoding=True))
        assert grid.read_level == 1
        with TileReader(slide, grid, everything(grid)) as reader:
            assert reader.decoding_factor == 1


def test_tiles_that_no_factor_divides_stay_as_they_are(make_slide: Callable[..., Path]) -> None:
    with (
        open_slide(make_slide(700, 600, Kind(factors=(1,), tile=(240, 240)))) as slide,
        open_stored_tiles(slide, 0) as stored,
    ):
        assert [stored.reducible(factor) for factor in (2, 4, 8)] == [True] * 3
        small = stored.reduced(8)
        assert (small.width_px, small.height_px, small.tile_width_px) == (88, 75, 30)
        assert not small.reducible(4)
        with pytest.raises(ValueError, match="1/4"):
            small.reduced(4)


def test_a_damaged_tile_fails_when_scaled_too(make_slide: Callable[..., Path]) -> None:
    import tifffile

    path = make_slide(1024, 1024, ONE_LEVEL)
    with tifffile.TiffFile(path) as file:
        offset, size = file.pages.first.dataoffsets[5], file.pages.first.databytecounts[5]
    content = bytearray(path.read_bytes())
    content[offset + size // 2 : offset + size] = bytes(size - size // 2)
    path.write_bytes(content)
    with open_slide(path) as slide:
        grid = TileGrid.plan(slide.levels, MPP, GridConfig(mpp=0.5, tile_px=128, scaled_decoding=True))
        _, failed = read_all(TileReader(slide, grid, everything(grid)))
    assert np.flatnonzero(failed).tolist() == [5]
