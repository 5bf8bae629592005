"""Rectangles of a level from stored tiles: the reader's pixels, or the reader itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests.tiling.conftest import Kind
from wsi_ncmi.core.errors import SlideReadError
from wsi_ncmi.slides import LevelReader, StoredRegions, open_slide, overview, read_overview, regions
from wsi_ncmi.slides.stored import StoredTiles
from wsi_ncmi.synthesis import write_test_slide

BOXES = ((0, 0, 700, 300), (255, 255, 257, 257), (900, 801, 1500, 1100), (1499, 1099, 1500, 1100))


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    write_test_slide(tmp_path / "slide.svs", mpp=0.25, width_px=1500, height_px=1100)
    return tmp_path / "slide.svs"


def test_unreduced_parts_are_the_readers_pixels(slide: Path) -> None:
    with open_slide(slide) as opened, StoredRegions(opened, 0, 1.9) as ours, LevelReader(opened, 0, 1) as its:
        for box in BOXES:
            part, honest = ours.read(*box), its.read(*box)
            assert (part.left, part.top, part.factor) == (box[0], box[1], 1)
            assert np.abs(part.pixels.astype(np.int16) - honest.pixels).max() <= 2
        assert ours.direct


@pytest.mark.parametrize(("most", "factor"), [(2.0, 2), (3.9, 2), (4.0, 4), (99.0, 8)])
def test_reduced_parts_are_near_the_mean_where_they_say(slide: Path, most: float, factor: int) -> None:
    box = (331, 257, 1103, 902)
    with open_slide(slide) as opened, StoredRegions(opened, 0, most) as ours:
        part = ours.read(*box)
        assert part.factor == factor
        assert part.left <= box[0] < part.left + factor
        high, wide = part.pixels.shape[:2]
        assert part.left + wide * factor >= box[2]
        whole = opened.read_region(part.left, part.top, 0, wide * factor, high * factor)
    mean = whole.reshape(high, factor, wide, factor, 3).mean(axis=(1, 3))
    off = np.abs(part.pixels - mean)
    assert off.mean() < 1.5
    assert np.abs(np.roll(part.pixels, 1, axis=1) - mean).mean() > 1.5 * off.mean()


def test_each_stored_tile_is_decoded_once_for_its_neighbours(
    slide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    honest = StoredTiles.decode
    with open_slide(slide) as opened, StoredRegions(opened, 0, 2.0) as ours:
        ours.read(0, 0, 10, 10)  # proves the way
        monkeypatch.setattr(
            StoredTiles, "decode", lambda self, index, out: (decoded.append(index), honest(self, index, out))
        )
        for left in range(0, 1500, 100):
            ours.read(left, 300, min(left + 100, 1500), 500)
    assert sorted(decoded) == sorted(set(decoded))
    assert len(decoded) == 6


def test_little_is_kept(slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regions, "_KEPT_BYTES", 3 * 256 * 256 * 3)
    with open_slide(slide) as opened, StoredRegions(opened, 0, 1.0) as ours:
        whole = ours.read(0, 0, 1500, 1100)
        assert len(ours._kept) == 3
        assert np.abs(whole.pixels.astype(np.int16) - opened.read_region(0, 0, 0, 1500, 1100)).max() <= 2


def test_other_pixels_than_the_readers_are_never_taken(slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = StoredTiles.decode

    def wrong(self: StoredTiles, index: int, out: np.ndarray) -> None:
        honest(self, index, out)
        np.subtract(255, out, out=out)

    monkeypatch.setattr(StoredTiles, "decode", wrong)
    with open_slide(slide) as opened, StoredRegions(opened, 0, 4.0) as ours:
        part = ours.read(0, 0, 600, 400)
        assert not ours.direct
        assert part.factor == 1
        np.testing.assert_array_equal(part.pixels, opened.read_region(0, 0, 0, 600, 400))


def test_a_tile_that_does_not_decode_is_an_error_and_no_other(
    slide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = StoredTiles.decode

    def broken(self: StoredTiles, index: int, out: np.ndarray) -> None:
        if index == 7:
            raise ValueError("bad marker")
        honest(self, index, out)

    with open_slide(slide) as opened, StoredRegions(opened, 0, 2.0) as ours:
        ours.read(0, 0, 100, 100)
        monkeypatch.setattr(StoredTiles, "decode", broken)
        with pytest.raises(SlideReadError, match="stored tile 7"):
            ours.read(200, 200, 400, 400)
        assert ours.read(600, 0, 900, 100).pixels.any()


def test_a_format_without_plain_tiles_goes_through_the_reader(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "strips.tif", pixels, photometric="rgb")
    with open_slide(tmp_path / "strips.tif") as opened, StoredRegions(opened, 0, 8.0) as ours:
        assert not ours.direct
        part = ours.read(10, 20, 110, 70)
    assert part.factor == 1
    np.testing.assert_array_equal(part.pixels, pixels[20:70, 10:110])


def test_nothing_stored_proves_nothing(make_slide) -> None:
    """A rectangle of absent tiles comes through the reader, and the way is still to be proven."""
    path = make_slide(1024, 1024, Kind(factors=(1,), absent=frozenset({0, 1, 4, 5, 6})))
    with open_slide(path) as opened, StoredRegions(opened, 0, 1.0) as ours:
        for top, proven in ((0, False), (200, False), (400, True), (0, True)):
            part = ours.read(0, top, 400, top + 200).pixels.astype(np.int16)
            assert np.abs(part - opened.read_region(0, top, 0, 400, 200)).max() <= 2
            assert (ours.direct, ours._proven) == (True, proven)


def cut_tile(path: Path, index: int) -> None:
    """Zeroes the second half of a stored tile."""
    with tifffile.TiffFile(path) as file:
        offset, size = file.pages.first.dataoffsets[index], file.pages.first.databytecounts[index]
    content = bytearray(path.read_bytes())
    content[offset + size // 2 : offset + size] = bytes(size - size // 2)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("kind", "direct"),
    [
        (Kind(factors=(1,)), True),
        (Kind(factors=(1,), absent=frozenset({2, 5}), tile=(240, 240)), True),
        (Kind("j2k-rgb", vendor="aperio", factors=(1,)), True),
        # OpenSlide rounds twice: a grey level apart, which may not move the edge of the tissue.
        (Kind("j2k-ycbcr", vendor="aperio", factors=(1,)), False),
    ],
)
@pytest.mark.parametrize("damaged", [False, True])
def test_an_overview_of_stored_tiles_is_the_readers(
    kind: Kind, direct: bool, damaged: bool, make_slide, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit by bit, with the same places marked: the reader is asked again where a tile is damaged."""
    path = make_slide(700, 600, kind)
    if damaged:
        cut_tile(path, 4)
    decoded: list[int] = []
    honest = StoredTiles.decode
    monkeypatch.setattr(
        StoredTiles, "decode", lambda self, index, out: (decoded.append(index), honest(self, index, out))
    )
    with open_slide(path) as opened:
        ours = read_overview(opened, 171, 147)
        monkeypatch.setattr(overview, "StoredRegions", LevelReader)
        honest_one = read_overview(opened, 171, 147)
    assert (len(decoded) > 2) == direct  # the proof takes up to two
    np.testing.assert_array_equal(ours.pixels, honest_one.pixels)
    np.testing.assert_array_equal(ours.readable, honest_one.readable)
    assert ours.note == honest_one.note
