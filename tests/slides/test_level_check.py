"""Levels that show something else than the first one are left out, with a remark; sound ones all stay."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageFilter

from wsi_ncmi.core.errors import SlideReadError
from wsi_ncmi.slides import Level, open_slide, read_overview, take_inventory
from wsi_ncmi.slides.base import Slide
from wsi_ncmi.slides.level_check import leave_out_wrong_levels

WIDTH, HEIGHT = 2048, 1536


def scene(
    seed: int = 0, pieces: tuple[tuple[int, int, int, int], ...] = ((200, 150, 700, 600),)
) -> np.ndarray:
    """Glass with pieces of a texture that has contrast at every scale."""
    rng = np.random.default_rng(seed)
    picture = np.clip(rng.normal(243, 1, (HEIGHT, WIDTH, 3)), 0, 255)
    for left, top, wide, high in pieces:
        tissue = np.full((high, wide), 150.0)
        for step, weight in ((64, 25.0), (16, 18.0), (4, 10.0)):
            grain = Image.fromarray(rng.normal(0, 1, (high // step + 2, wide // step + 2)).astype(np.float32))
            tissue += weight * np.asarray(grain.resize((wide, high), Image.Resampling.BICUBIC))
        picture[top : top + high, left : left + wide] = tissue[..., None] * (1.1, 0.8, 1.05)
    return picture.clip(0, 255).astype(np.uint8)


def smaller(picture: np.ndarray, factor: float, how: Image.Resampling = Image.Resampling.BOX) -> np.ndarray:
    size = round(picture.shape[1] / factor), round(picture.shape[0] / factor)
    return np.asarray(Image.fromarray(picture).resize(size, how))


def glass_slide(width: int, height: int) -> np.ndarray:
    """A macro image: the whole glass with its label and a small piece of tissue."""
    picture = np.full((height, width, 3), 235, np.uint8)
    picture[:, : width // 3] = 110
    picture[height // 2 : height // 2 + height // 5, width // 2 : width // 2 + width // 4] = (190, 120, 170)
    return picture


@functools.cache
def whole() -> np.ndarray:
    return scene()


@functools.cache
def speck() -> np.ndarray:
    return scene(3, ((1300, 1250, 100, 80),))


def blank(factor: int, grey: int = 243) -> np.ndarray:
    return np.full((HEIGHT // factor, WIDTH // factor, 3), grey, np.uint8)


def half_blank() -> tuple[np.ndarray, ...]:
    picture = scene(5, ((200, 150, 500, 600), (1300, 500, 600, 800)))
    spoilt = smaller(picture, 4).copy()
    spoilt[:, 256:] = 243
    return picture, spoilt, smaller(picture, 16)


def broken_off(level: np.ndarray, grey: int = 255) -> np.ndarray:
    """A level whose lower part was never written, from the middle of the tissue on."""
    rows = len(level) * 300 // HEIGHT
    return np.concatenate([level[:rows], np.full_like(level[rows:], grey)])


WRONG: dict[str, tuple[Callable[[], tuple[np.ndarray, ...]], set[int], str]] = {
    "macro of other sides": (lambda: (whole(), glass_slide(900, 300)), {1}, "not a square"),
    "level that lost an edge": (lambda: (whole(), smaller(whole(), 2)[:, :900]), {1}, "not a square"),
    "macro of the same sides": (
        lambda: (whole(), smaller(whole(), 2), glass_slide(512, 384)),
        {2},
        "something else",
    ),
    "macro between levels": (
        lambda: (whole(), glass_slide(1024, 768), smaller(whole(), 8)),
        {1},
        "something else",
    ),
    "two macros": (
        lambda: (whole(), glass_slide(1024, 768), glass_slide(512, 384)),
        {1, 2},
        "something else",
    ),
    "crop of the same sides": (lambda: (whole(), smaller(whole(), 2)[:576, :768]), {1}, "something else"),
    "displaced": (lambda: (whole(), np.roll(smaller(whole(), 8), (24, 36), (0, 1))), {1}, "something else"),
    "mirrored": (lambda: (whole(), smaller(whole(), 2), smaller(whole(), 8)[:, ::-1]), {2}, "something else"),
    "blank": (lambda: (whole(), blank(8)), {1}, "shows nothing"),
    "black": (lambda: (whole(), blank(8, 0)), {1}, "shows nothing"),
    "blank beside little tissue": (lambda: (speck(), blank(4)), {1}, "shows nothing"),
    "blank between levels": (lambda: (speck(), blank(2), smaller(speck(), 8)), {1}, "shows nothing"),
    "half blank": (half_blank, {1}, "something else"),
    "half blank at the end": (lambda: half_blank()[:2], {1}, "something else"),
    "half white behind a sound one": (
        lambda: (whole(), smaller(whole(), 4), broken_off(smaller(whole(), 8))),
        {2},
        "something else",
    ),
    "second page of the first one's size": (lambda: (whole(), whole()[::-1]), {1}, "something else"),
    "blank page of the first one's size": (lambda: (whole(), blank(1)), {1}, "shows nothing"),
    "two blank pages of one size": (lambda: (whole(), blank(4), blank(4)), {1, 2}, "shows nothing"),
    "half black": (lambda: (whole(), broken_off(smaller(whole(), 4), 0)), {1}, "something else"),
}
SOUND: dict[str, Callable[[], tuple[np.ndarray, ...]]] = {
    "averaged": lambda: (whole(), smaller(whole(), 2), smaller(whole(), 4), smaller(whole(), 32)),
    "decimated": lambda: (whole(), whole()[::4, ::4], whole()[::16, ::16]),
    "a gap of 32": lambda: (whole(), smaller(whole(), 32)),
    "little tissue": lambda: (speck(), smaller(speck(), 4), smaller(speck(), 16)),
    "no tissue": lambda: (blank(1), blank(4)),
    "sharpened": lambda: (
        whole(), np.asarray(Image.fromarray(smaller(whole(), 4)).filter(ImageFilter.UnsharpMask(2, 300))),
    ),
    "darker": lambda: (whole(), (smaller(whole(), 4) * 0.8).astype(np.uint8)),
    "off by a pixel": lambda: (whole(), np.roll(smaller(whole(), 4), (1, 1), (0, 1))),
    "sides rounded": lambda: (whole(), smaller(whole(), 3), smaller(whole(), 7), smaller(whole(), 100)),
}  # fmt: skip


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def written(*levels: np.ndarray) -> Path:
        path = tmp_path / "slide.tif"
        with tifffile.TiffWriter(path) as file:
            for number, level in enumerate(levels):
                file.write(
                    np.ascontiguousarray(level), tile=(256, 256), photometric="rgb", compression="jpeg",
                    metadata=None, subfiletype=min(number, 1), resolution=(20000, 20000),
                    resolutionunit="CENTIMETER",
                )  # fmt: skip
        return path

    return written


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_level_is_left_out_with_a_remark(kind: str, write: Callable[..., Path]) -> None:
    make, wrong, reason = WRONG[kind]
    levels = make()
    with open_slide(write(*levels)) as slide:
        assert set(range(len(levels))) - set(slide.numbers) == wrong
        assert len(slide.reader_levels) == len(levels)
        for number in wrong:
            height, width = levels[number].shape[:2]
            assert f"Level {number} of {width} × {height} px is not used: " in slide.note
        assert reason in slide.note
        # What is read is the slide, whatever level it comes from.
        for factor in (2, 6, 16):
            wide, high = WIDTH // factor, HEIGHT // factor
            picture = read_overview(slide, wide, high).pixels.astype(int)
            assert np.abs(picture - smaller(levels[0], factor)[:high, :wide]).mean() < 2


@pytest.mark.parametrize("kind", SOUND)
def test_levels_of_sound_slides_stay(kind: str, write: Callable[..., Path]) -> None:
    levels = SOUND[kind]()
    with open_slide(write(*levels)) as slide:
        assert len(slide.levels) == len(levels)
        assert slide.note == ""


def test_levels_behind_one_that_is_left_out_are_read_by_their_own_number(write: Callable[..., Path]) -> None:
    from wsi_ncmi.slides.stored import open_stored_tiles, probe_stored_tiles

    coarse = smaller(whole(), 8)
    with open_slide(write(whole(), glass_slide(1024, 768), coarse)) as slide:
        assert slide.numbers == (0, 2)
        read = slide.read_region(0, 0, 1, coarse.shape[1], coarse.shape[0])
        assert np.abs(read.astype(int) - coarse).mean() < 3
        with open_stored_tiles(slide, 1) as stored:
            assert probe_stored_tiles(slide, 1, stored, np.arange(1)) == 0


def test_the_inventory_reads_no_pixel_and_still_leaves_out_uneven_levels(
    write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(whole(), glass_slide(900, 300), blank(8))
    monkeypatch.setattr(Slide, "read_region", None)
    (record,) = take_inventory(tmp_path)
    assert (record.problem, record.n_levels) == ("", 2)


def test_places_that_cannot_be_read_tell_nothing(tmp_path: Path) -> None:
    class Unreadable(Slide):
        def _read(self, *request: int) -> np.ndarray:
            raise SlideReadError("the disk is gone")

    levels = [Level(2048, 1536, 1.0, 1.0), Level(512, 384, 4.0, 4.0)]
    slide = Unreadable(tmp_path / "s.svs", reader="test", vendor="", levels=levels, properties={})
    leave_out_wrong_levels(slide)
    assert (len(slide.levels), slide.note) == (2, "")


def counted_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Levels that the slide's own reader is asked for from now on."""
    asked: list[int] = []
    honest = Slide.read_region

    def read_region(self: Slide, x: int, y: int, level: int, *size: int) -> np.ndarray:
        asked.append(level)
        return honest(self, x, y, level, *size)

    monkeypatch.setattr(Slide, "read_region", read_region)
    return asked


def test_levels_are_checked_when_they_are_first_looked_at(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(speck(), blank(8))
    asked = counted_reads(monkeypatch)
    for look in ("levels", "numbers", "note", "level_count"):
        with open_slide(path) as slide:
            assert slide.dimensions == (WIDTH, HEIGHT)
            assert not asked
            slide.read_region(0, 0, 0, 16, 16)
            assert asked == [0]
            assert str(getattr(slide, look)).count("shows nothing") == (look == "note")
            assert (len(slide.levels), slide.numbers) == (1, (0,))
            assert len(asked) > 1
            count = len(asked)
            assert "shows nothing" in slide.note
            assert len(asked) == count
        asked.clear()


def test_other_threads_wait_for_the_check(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with open_slide(write(whole(), glass_slide(512, 384))) as slide, ThreadPoolExecutor(4) as threads:
        assert set(threads.map(lambda _: slide.numbers, range(16))) == {(0,)}


def test_an_interrupted_check_is_made_again(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from wsi_ncmi.slides import level_check

    with open_slide(write(whole(), blank(8))) as slide:
        with monkeypatch.context() as broken:
            broken.setattr(level_check, "_places", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                slide.note  # noqa: B018
        assert "shows nothing" in slide.note


def test_stored_tiles_tell_of_sound_levels_alone(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One place a level is compared with the reader; where it shows something else, it alone is believed."""
    from wsi_ncmi.slides.stored import StoredTiles

    sound = write(whole(), smaller(whole(), 4), smaller(whole(), 16))
    asked = counted_reads(monkeypatch)
    with open_slide(sound) as slide:
        assert len(slide.levels) == 3
    assert sorted(asked) == [0, 1, 2]
    honest = StoredTiles.decode
    monkeypatch.setattr(
        StoredTiles, "decode", lambda self, index, out: (honest(self, index, out), out.__imul__(0))
    )
    for levels in (3, 1):
        with open_slide(sound if levels == 3 else write(whole(), blank(4), blank(16))) as slide:
            assert len(slide.levels) == levels

    def broken(*_: object) -> None:
        raise OSError("no such decoder")

    monkeypatch.setattr(StoredTiles, "decode", broken)
    with open_slide(write(whole(), glass_slide(512, 384))) as slide:
        assert slide.numbers == (0,)
    monkeypatch.setattr(
        StoredTiles,
        "decode",
        lambda self, index, out: (honest(self, index, out), out.__setitem__(..., out[::-1].copy())),
    )
    asked.clear()
    with open_slide(write(whole(), smaller(whole(), 4))) as slide:
        assert len(slide.levels) == 2
    assert len(asked) > 6
