"""Blur from a tile's own pixels: blurred is found, plain and noisy is not mistaken for it."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from wsi_ncmi.tissue import ArtifactConfig, tile_blur

LIMIT = ArtifactConfig().blur
SIDE = 224


def cells(mpp: float, seed: int = 0, contrast: float = 1.0) -> np.ndarray:
    """Sharp nuclei of about 7 µm on eosin, drawn four times finer and averaged."""
    rng = np.random.default_rng(seed)
    fine = np.full((SIDE * 4, SIDE * 4), 190.0)
    step, side_um = mpp / 4, SIDE * mpp
    for _ in range(int(0.004 * side_um**2)):
        cx, cy, r = *rng.uniform(0, side_um, 2), rng.uniform(2.5, 4.5)
        left, top = max(0, int((cx - 6) / step)), max(0, int((cy - 6) / step))
        part = fine[top : top + int(12 / step), left : left + int(12 / step)]
        y, x = np.indices(part.shape) * step
        part[(x + left * step - cx) ** 2 + (y + top * step - cy) ** 2 < r**2] -= 70 * contrast
    small = fine.reshape(SIDE, 4, SIDE, 4).mean(axis=(1, 3))
    tile = np.stack([small + 20, small, small + 10], axis=-1) + rng.normal(0, 1.5, (SIDE, SIDE, 3))
    return np.rint(tile).clip(0, 255).astype(np.uint8)


def softened(tile: np.ndarray, sigma_px: float) -> np.ndarray:
    return np.asarray(Image.fromarray(tile).filter(ImageFilter.GaussianBlur(sigma_px)))


def jpeg(tile: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(tile).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


@pytest.mark.parametrize("mpp", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("quality", [50, 75, 95])
def test_blur_is_told_from_focus(mpp: float, quality: int) -> None:
    sharp = [cells(mpp, seed) for seed in range(4)]
    blurred = [softened(tile, 2.5 / mpp) for tile in sharp]
    scores = tile_blur(np.stack([jpeg(tile, quality) for tile in sharp + blurred]), mpp)
    assert (scores[:4] < LIMIT).all(), scores
    assert (scores[4:] >= LIMIT).all(), scores


def test_half_a_tile_out_of_focus_scores_about_half() -> None:
    tile = cells(0.5)
    tile[:, : SIDE // 2] = softened(tile, 6.0)[:, : SIDE // 2]
    assert 0.3 < tile_blur(tile[None], 0.5)[0] < 0.7


def test_plain_tiles_are_not_out_of_focus() -> None:
    rng = np.random.default_rng(0)
    glass = np.full((SIDE, SIDE, 3), 240, np.uint8)
    mucus = 200 + 25 * np.sin(np.arange(SIDE) / 60.0)[:, None, None] + rng.normal(0, 2, (SIDE, SIDE, 3))
    plain = [glass, mucus.astype(np.uint8), jpeg(mucus.astype(np.uint8), 75)]
    assert (tile_blur(np.stack(plain), 0.5) < LIMIT).all()


@pytest.mark.parametrize("edge", range(94, 130, 3))
@pytest.mark.parametrize("across", [False, True])
def test_a_sharp_edge_of_glass_is_not_out_of_focus(edge: int, across: bool) -> None:
    """Wherever it lies: beside a block it would be seen by the coarse differences alone."""
    tile = cells(0.5)
    tile[edge:] = 232
    tile[edge + 70 :] = 255  # where a scanner stored nothing, white begins
    assert tile_blur((tile.swapaxes(0, 1) if across else tile)[None], 0.5)[0] < 0.2


def test_shape_and_range() -> None:
    rng = np.random.default_rng(1)
    scores = tile_blur(rng.integers(0, 256, (3, 100, 60, 3), dtype=np.uint8), 0.5)
    assert scores.dtype == np.float32
    assert scores.shape == (3,)
    assert ((scores >= 0) & (scores <= 1)).all()
    assert tile_blur(np.zeros((2, 8, 8, 3), np.uint8), 0.25).tolist() == [0.0, 0.0]
    assert tile_blur(np.zeros((0, 64, 64, 3), np.uint8), 0.5).shape == (0,)


@pytest.mark.real_data
def test_real_tiles_are_sharp_and_their_blurred_copies_are_not(real_data: Path) -> None:
    with (real_data / "tiles" / "tiles.csv").open() as handle:
        names = [row["file"] for row in csv.DictReader(handle)][::10]
    tiles = [np.asarray(Image.open(real_data / "tiles" / name).convert("RGB")) for name in names]
    # Red cells of about 12 px say that the tiles have about 0.5 µm per pixel.
    assert (tile_blur(np.stack(tiles), 0.5) >= LIMIT).mean() < 0.05
    for sigma_um in (1.0, 2.0):
        copies = np.stack([softened(tile, sigma_um / 0.5) for tile in tiles])
        assert (tile_blur(copies, 0.5) >= LIMIT).mean() > 0.95
