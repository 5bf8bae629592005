"""Each stored tile is decoded once, whatever the grid, within a bounded cache."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.tiling.conftest import Kind
from wsi_ncmi.slides import Mpp, open_slide
from wsi_ncmi.slides.stored import NotDirectError, open_stored_tiles
from wsi_ncmi.slides.tile_decoders import pixel_array
from wsi_ncmi.tiling import GridConfig, TileGrid, sources
from wsi_ncmi.tiling.reader import _rectangles
from wsi_ncmi.tiling.sources import DirectSource


def walk(path: Path, options: GridConfig) -> tuple[Counter[bytes], int, int]:
    """Reads all tiles; returns how often each stream was decoded, stored tiles, and the fullest cache."""
    decoded: Counter[bytes] = Counter()
    fullest = 0
    with open_slide(path) as slide, open_stored_tiles(slide, 0) as stored:

        def counting(data: bytes, out: NDArray[np.uint8]) -> None:
            decoded[data] += 1
            stored.decoder(data, out)

        grid = TileGrid.plan(slide.levels, Mpp(0.25, 0.25, "table"), options)
        plan = _rectangles(grid.level_boxes(), grid.level.width_px, grid.level.height_px)
        source = DirectSource(slide, dataclasses.replace(stored, decoder=counting), plan)
        used = len(source.used_tiles)
        for start in range(0, len(plan), 3):
            wanted = range(start, min(start + 3, len(plan)))
            source.prepare(wanted)
            for position in wanted:
                source.region(position)
            source.release(wanted)
            fullest = max(fullest, len(source._cache))
        assert not source._cache
    return decoded, used, fullest


@pytest.mark.parametrize(("target", "overlap_px"), [(0.25, 0), (0.25, 28), (0.25, 100), (0.5, 0), (0.37, 7)])
def test_each_stored_tile_is_decoded_once(
    target: float, overlap_px: int, make_slide: Callable[..., Path]
) -> None:
    path = make_slide(1024, 896, Kind(tile=(128, 128), factors=(1,)))
    decoded, used, fullest = walk(path, GridConfig(mpp=target, tile_px=128, overlap_px=overlap_px))
    assert len(decoded) == used
    assert set(decoded.values()) == {1}
    assert fullest <= 3 * 8 + 4  # at most the rows of stored tiles that one row of tiles touches


def test_above_its_limit_the_cache_forgets_and_pixels_stay_right(
    make_slide: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_slide(1024, 896, Kind(tile=(128, 128), factors=(1,)))
    monkeypatch.setattr(sources, "CACHE_BYTES", 4 * 128 * 128 * 3)
    options = GridConfig(mpp=0.25, tile_px=128, overlap_px=28)
    decoded, used, fullest = walk(path, options)
    assert len(decoded) == used
    assert max(decoded.values()) > 1
    assert fullest <= 4


def test_arrays_of_tiles_are_used_again_and_begin_where_decoding_is_fastest(
    make_slide: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[NDArray[np.uint8]] = []

    def counting(*shape: int) -> NDArray[np.uint8]:
        made.append(pixel_array(*shape))
        return made[-1]

    monkeypatch.setattr(sources, "pixel_array", counting)
    path = make_slide(1024, 896, Kind(tile=(128, 128), factors=(1,)))
    _, used, fullest = walk(path, GridConfig(mpp=0.25, tile_px=96, overlap_px=28))
    tiles = sum(array.shape == (128, 128, 3) for array in made)
    assert tiles <= fullest + 8 < used
    assert {array.ctypes.data % 32 for array in made} == {16}


def test_levels_that_are_no_plain_grid_of_tiles_say_why(tmp_path: Path) -> None:
    from PIL import Image

    flat = tmp_path / "flat.png"
    Image.new("RGB", (300, 300), (200, 150, 180)).save(flat)
    with open_slide(flat) as slide, pytest.raises(NotDirectError, match="is not one of aperio"):
        open_stored_tiles(slide, 0)
