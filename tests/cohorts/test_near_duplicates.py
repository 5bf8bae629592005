from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from PIL import Image

from wsi_ncmi.cohorts import find_near_duplicates, thumbnail_signature
from wsi_ncmi.cohorts.near_duplicates import same_texture


def piece_of_tissue(seed, height=400, width=520):
    """Pink blobs with structure on glass, each seed a piece of its own."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    mask = np.zeros((height, width), bool)
    for _ in range(rng.integers(2, 5)):
        cy, cx = rng.uniform(0.3, 0.7) * height, rng.uniform(0.3, 0.7) * width
        ry, rx = rng.uniform(0.1, 0.3) * height, rng.uniform(0.1, 0.3) * width
        mask |= ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1
    coarse = rng.normal(size=(20, 26))
    texture = np.asarray(Image.fromarray(coarse.astype(np.float32)).resize((width, height), Image.BICUBIC))
    tissue = np.array([200, 130, 180]) + 22 * texture[..., None] + rng.normal(0, 5, (height, width, 1))
    return np.where(mask[..., None], tissue, 240).clip(0, 255).astype(np.uint8)


def jpeg(pixels, quality=30):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


COPIES = {
    "same": lambda a: a,
    "compressed": jpeg,
    "smaller": lambda a: np.asarray(Image.fromarray(a).resize((a.shape[1] // 3, a.shape[0] // 3))),
    "turned": lambda a: np.rot90(a).copy(),
    "upside down": lambda a: np.rot90(a, 2).copy(),
    "mirrored": lambda a: a[:, ::-1].copy(),
    "tinted": lambda a: (a * np.array([0.92, 1.0, 0.95])).astype(np.uint8),
    "more glass": lambda a: np.pad(a, ((40, 10), (0, 70), (0, 0)), constant_values=240),
}


@pytest.mark.parametrize("copy", COPIES)
def test_copies_are_found_among_others(copy):
    originals = {f"s{seed:02}": piece_of_tissue(seed) for seed in range(12)}
    signatures = {name: thumbnail_signature(pixels) for name, pixels in originals.items()}
    signatures["zcopy"] = thumbnail_signature(COPIES[copy](originals["s07"]))
    assert [(pair.first, pair.second) for pair in find_near_duplicates(signatures)] == [("s07", "zcopy")]


def test_pieces_of_one_outline_are_no_copies():
    """Two lymph nodes lie side by side on many slides: their outline is one, their inside is not."""
    shape = piece_of_tissue(3) < 235
    pieces = {}
    for seed in range(6):
        rng = np.random.default_rng(100 + seed)
        coarse = rng.normal(size=(60, 78)).astype(np.float32)
        texture = np.asarray(Image.fromarray(coarse).resize((520, 400), Image.BICUBIC))
        tissue = np.array([170, 90, 150]) + 18 * texture[..., None]
        pieces[f"s{seed}"] = (
            np.where(shape.all(axis=2, keepdims=True), tissue, 240).clip(0, 255).astype(np.uint8)
        )
    signatures = {name: thumbnail_signature(pixels) for name, pixels in pieces.items()}
    coarse_alike = [
        float((signatures[a].detail @ signatures[b].detail[0]).max())
        for a in signatures
        for b in signatures
        if a < b
    ]
    assert max(coarse_alike) > 0.8  # by their outline alone they would pass for copies
    assert find_near_duplicates(signatures) == []
    signatures["z"] = thumbnail_signature(jpeg(np.rot90(pieces["s2"]).copy()))
    assert [(pair.first, pair.second) for pair in find_near_duplicates(signatures)] == [("s2", "z")]


def test_texture_needs_an_inside():
    picture = np.full((96, 96), 120, np.uint8)
    nothing, everything = np.zeros((96, 96), bool), np.ones((96, 96), bool)
    assert same_texture(picture, nothing, picture, everything) == 0.0
    noise = np.random.default_rng(0).integers(60, 200, (96, 96)).astype(np.uint8)
    assert same_texture(noise, everything, np.rot90(noise)[:, ::-1], everything) == pytest.approx(
        1.0, abs=0.01
    )
    shifted = np.roll(noise, (3, -2), axis=(0, 1))
    assert same_texture(noise, everything, shifted, everything) > 0.9
    other = np.random.default_rng(1).integers(60, 200, (96, 96)).astype(np.uint8)
    assert same_texture(noise, everything, other, everything) < 0.15


def test_hundreds_of_different_pieces_raise_no_alarm():
    signatures = {f"s{seed:03}": thumbnail_signature(piece_of_tissue(seed, 120, 150)) for seed in range(250)}
    assert find_near_duplicates(signatures) == []


def test_empty_slides_are_not_copies_of_each_other():
    glass = np.full((200, 300, 3), 240, np.uint8)
    assert thumbnail_signature(glass) is None
    noisy = (glass + np.random.default_rng(0).integers(-2, 3, glass.shape)).astype(np.uint8)
    assert thumbnail_signature(noisy) is None
    assert thumbnail_signature(np.zeros((3, 3, 3), np.uint8)) is None
    assert find_near_duplicates({}) == []


@pytest.mark.real_data
def test_real_tissue(real_data):
    with (real_data / "tiles" / "tiles.csv").open(newline="") as handle:
        files = {row["source_id"]: row["file"] for row in csv.DictReader(handle)}
    chosen = list(files.values())[:: len(files) // 40][:40]
    pixels = [np.asarray(Image.open(real_data / "tiles" / file).convert("RGB")) for file in chosen]
    signatures = {f"a{i:02}": thumbnail_signature(tile) for i, tile in enumerate(pixels)}
    signatures |= {
        f"b{i:02}": thumbnail_signature(np.rot90(jpeg(tile)).copy()) for i, tile in enumerate(pixels)
    }
    pairs = {(pair.first, pair.second) for pair in find_near_duplicates(signatures)}
    assert pairs == {(f"a{i:02}", f"b{i:02}") for i in range(40)}
