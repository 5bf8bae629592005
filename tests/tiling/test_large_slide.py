"""A slide of 150,000 × 150,000 px: what is held in memory, and what is read of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.sparse_slide import write_sparse_slide
from wsi_ncmi.slides import open_slide, read_overview, resolve_mpp
from wsi_ncmi.tiling import GridConfig, TileGrid, TileReader, TileSelection

SIDE_PX, TISSUE_TILES = 150_000, 60
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "sparse.tif"
    assert write_sparse_slide(path, SIDE_PX, TISSUE_TILES) == TISSUE_TILES
    return path


def test_mask_grid_choice_and_reading_stay_below_600_mib(sparse: Path) -> None:
    """In a process of its own, as the whole way of a slide through the benchmark."""
    done = subprocess.run(
        [sys.executable, "benchmarks/large_slide.py", "--measure", sparse],
        cwd=ROOT, capture_output=True, text=True, check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["peak_rss_mib"] < 600
    # 512 level-0 px are one tile at 0.5 µm; smoothing and holes of the mask move its border a little.
    assert TISSUE_TILES <= found["tiles"] <= 1.6 * TISSUE_TILES


def test_only_places_with_tissue_are_read(sparse: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_slide(sparse) as slide:
        assert slide.levels  # compared with each other at the first look
        asked = []
        honest = type(slide)._read
        monkeypatch.setattr(
            type(slide), "_read", lambda self, *request: asked.append(request) or honest(self, *request)
        )
        picture = read_overview(slide, 586, 586)
        # 60 tiles of 512 px are a disc of 4,500 px: one of the 21,609 blocks of level 0, some of the coarse one.
        assert 0 < len(asked) <= 9
    tissue = picture.pixels.min(axis=2) < 200
    assert tissue.sum() * 256**2 == pytest.approx(TISSUE_TILES * 512**2, rel=0.25)
    rows, columns = np.nonzero(tissue)
    assert abs(rows.mean() - 292.5) < 3
    assert abs(columns.mean() - 292.5) < 3


def test_a_row_across_the_whole_slide_keeps_the_cache_bounded(sparse: Path) -> None:
    """An unaligned row of 150,000 px, decoded in its turn: every stored tile once, absent ones not at all."""
    with open_slide(sparse) as slide:
        grid = TileGrid.plan(
            slide.levels, resolve_mpp(slide), GridConfig(mpp=0.25, tile_px=500, overlap_px=20)
        )
        middle = grid.n_rows // 2
        indices = np.arange(grid.n_columns * (middle - 1), grid.n_columns * (middle + 1), dtype=np.int64)
        selection = TileSelection(indices, grid.coords(indices), np.ones(len(indices), np.float16))
        with TileReader(slide, grid, selection) as reader:
            assert reader.path == "direct"
            white = failed = 0
            for batch in reader.batches(64):
                failed += int(batch.failed.sum())
                white += int((batch.pixels == 255).all(axis=(1, 2, 3)).sum())
            assert not reader._source._cache  # every tile was let go after its last use
    assert failed == 0
    assert 0.9 < white / len(selection) < 1.0
