"""Damaged JPEG 2000 tiles fail, whoever reads them; sound ones never do."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from tests.slides.dicom_slide import write_instance
from tests.tiling.conftest import Kind, everything, read_all, texture
from wsi_ncmi.core.errors import SlideReadError
from wsi_ncmi.slides import Mpp, open_slide, read_overview
from wsi_ncmi.slides.dicom_frames import dicom_levels
from wsi_ncmi.slides.jpeg2000 import jpeg2000_damage
from wsi_ncmi.tiling import GridConfig, TileGrid, TileReader
from wsi_ncmi.tissue import ArtifactConfig, TissueConfig, analyse_tissue

MPP = Mpp(0.25, 0.25, "table")


def encoded(pixels: NDArray[np.uint8], level: float = 40, mct: bool = False) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(pixels, codecformat="j2k", level=level, reversible=False, mct=mct))


def _glass() -> NDArray[np.uint8]:
    return np.random.default_rng(0).normal(243, 1.2, (256, 256, 3)).clip(0, 255).astype(np.uint8)


def _half() -> NDArray[np.uint8]:
    return np.concatenate((texture(128, 256), _glass()[:, 128:]), axis=1)


def _coloured() -> NDArray[np.uint8]:
    """Another grain in each colour: small code-blocks of one grain are equal, and repeat themselves."""
    return np.stack([texture(256, 256, seed)[..., seed] for seed in range(3)], axis=-1)


def _layered(pixels: NDArray[np.uint8]) -> bytes:
    """Six layers, of which the first ones leave most of the many code-blocks out."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(
        file, "JPEG2000", no_jp2=True, quality_mode="rates", quality_layers=[400, 200, 80, 40, 20, 10],
        codeblock_size=(16, 16), irreversible=True,
    )  # fmt: skip
    return file.getvalue()


STREAM = encoded(texture(256, 256))
K = len(STREAM)
NOISE = np.random.default_rng(1).bytes(K)
OTHER = encoded(texture(256, 256, 3))
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "second half zeroed": lambda s: s[: K // 2] + bytes(K - K // 2),
    "second half zeroed but the end": lambda s: s[: K // 2] + bytes(K - K // 2 - 2) + s[-2:],
    "first half zeroed": lambda s: s[:200] + bytes(K // 2 - 200) + s[K // 2 :],
    "a sector zeroed": lambda s: s[: K // 3] + bytes(512) + s[K // 3 + 512 :],
    "64 bytes zeroed": lambda s: s[: K // 3] + bytes(64) + s[K // 3 + 64 :],
    "erased flash": lambda s: s[: K // 2] + b"\xff" * (K - K // 2 - 2) + s[-2:],
    "a page of text": lambda s: s[: K // 3] + (b"no pixels at all " * 300)[:2048] + s[K // 3 + 2048 :],
    "a page of another tile": lambda s: s[: K // 3] + NOISE[:4096] + s[K // 3 + 4096 :],
    "cut": lambda s: s[: K // 2],
    "cut, then an end": lambda s: s[: K // 2] + b"\xff\xd9",
    "cut, then an end and padding": lambda s: s[: K // 2] + b"\xff\xd9" + bytes(K - K // 2 - 2),
    "no end": lambda s: s[:-2],
    "end of another tile": lambda s: s[: K // 2] + encoded(texture(256, 256, 7))[K // 2 :],
    "header overwritten": lambda s: s[:60] + bytes(40) + s[100:],
    "a byte lost": lambda s: s[: K // 2] + s[K // 2 + 1 : -2] + b"\x55" + s[-2:],
    "a third of a like tile": lambda s: s[: K // 3] + OTHER[K // 3 : 2 * K // 3] + s[2 * K // 3 :],
    "two pages swapped": lambda s: s[:4096] + s[8192:12288] + s[4096:8192] + s[12288:],
    "length changed": lambda s: s.replace(
        struct.pack(">I", K - s.index(b"\xff\x90") - 2), struct.pack(">I", 999)
    ),
}
SOUND: dict[str, Callable[[], bytes]] = {
    "tissue": lambda: STREAM,
    "much compressed": lambda: encoded(texture(256, 256), 30, True),
    "hardly compressed": lambda: encoded(texture(256, 256), 60),
    "glass": lambda: encoded(_glass(), 38),
    "half glass": lambda: encoded(_half(), 38),
    "one colour": lambda: encoded(np.full((256, 256, 3), 255, np.uint8)),
    "black": lambda: encoded(np.zeros((512, 512, 3), np.uint8)),
    "a padding byte": lambda: STREAM + b"\0",
    "several precincts": lambda: encoded(texture(640, 384)),
    "odd sides": lambda: encoded(texture(251, 67)),
    "one pixel": lambda: encoded(texture(1, 1)),
    "without loss": lambda: bytes(imagecodecs.jpeg2k_encode(texture(256, 256), codecformat="j2k", level=0)),
    "few resolutions": lambda: bytes(
        imagecodecs.jpeg2k_encode(texture(256, 256), codecformat="j2k", level=40, reversible=False, resolutions=2)
    ),
    "several layers": lambda: _layered(_coloured()),
    "subsampled chroma": lambda: (Path(__file__).parent / "data" / "ycbcr_420.j2k").read_bytes(),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_that_a_decoder_passes_over_is_told(damage: str) -> None:
    assert jpeg2000_damage(STREAM) == ""
    damaged = DAMAGES[damage](STREAM)
    assert damaged != STREAM
    assert jpeg2000_damage(damaged)


@pytest.mark.parametrize("kind", SOUND)
def test_sound_tiles_are_left_alone(kind: str) -> None:
    assert jpeg2000_damage(SOUND[kind]()) == ""


@pytest.mark.real_data
def test_tiles_of_a_real_slide_are_left_alone(real_data: Path) -> None:
    content = (real_data / "dicom" / "camelyon_multiframe_jpeg2000.dcm").read_bytes()
    frames, start = 0, -1
    while (start := content.find(b"\xff\x4f\xff\x51", start + 1)) > 0:
        length = int.from_bytes(content[start - 4 : start], "little")
        assert jpeg2000_damage(content[start : start + length]) == ""
        frames += 1
    assert frames == 28


@pytest.mark.parametrize("seed", range(3))
def test_any_bytes_give_an_answer(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(100):
        spoilt = bytearray(STREAM[: int(rng.integers(0, 400))])
        for place in rng.integers(0, max(len(spoilt), 1), 4):
            spoilt[place : place + 1] = rng.bytes(1)
        assert jpeg2000_damage(bytes(spoilt))


def test_a_stream_cut_anywhere_is_told_in_a_sentence() -> None:
    """Its length is right again, so that the packets' headers alone tell."""
    stream = encoded(texture(256, 256), 24)
    part = stream.index(b"\xff\x90")
    start = stream.index(b"\xff\x93")
    reasons = set()
    for cut in range(start + 2, len(stream) - 2):
        length = struct.pack(">I", cut - part)
        reasons.add(jpeg2000_damage(stream[: part + 6] + length + stream[part + 10 : cut] + stream[-2:]))
    assert reasons == {"its packets don't follow one another"}


def spoil(path: Path, page: int, tile: int) -> None:
    """Zeroes the second half of a stored tile."""
    with tifffile.TiffFile(path) as file:
        tiled = [each for each in file.pages if each.is_tiled]
        offset, size = tiled[page].dataoffsets[tile], tiled[page].databytecounts[tile]
    with path.open("r+b") as handle:
        handle.seek(offset + size // 2)
        handle.write(bytes(size - size // 2))


@pytest.mark.parametrize("compression", ["j2k-ycbcr", "j2k-rgb"])
@pytest.mark.parametrize("route", ["auto", "reader"])
def test_a_damaged_tile_is_a_failed_read_on_either_way(
    compression: str, route: str, make_slide: Callable[..., Path]
) -> None:
    path = make_slide(768, 512, Kind(compression, vendor="aperio", factors=(1,)))
    spoil(path, 0, 4)
    with open_slide(path) as slide:
        grid = TileGrid.plan(slide.levels, MPP, GridConfig(mpp=0.25, tile_px=256))
        reader = TileReader(slide, grid, everything(grid), path=route)
        _, failed = read_all(reader)
        assert reader.path == ("direct" if route == "auto" else "reader")
        assert failed.tolist() == [False] * 4 + [True, False]
        with pytest.raises(SlideReadError, match="stored tile 4"):
            slide.read_region(300, 300, 0, 10, 10)
        slide.read_region(-50, -50, 0, 300, 300)


def test_a_damaged_tile_of_a_coarser_level_is_no_glass_in_the_overview(
    make_slide: Callable[..., Path],
) -> None:
    path = make_slide(1024, 512, Kind("j2k-rgb", vendor="aperio", tile=(128, 128)))
    with open_slide(path) as slide:
        expected = read_overview(slide, 128, 64)
    assert expected.note == ""
    spoil(path, 1, 1)
    with open_slide(path) as slide:
        seen = read_overview(slide, 128, 64)
        for_ledger = analyse_tissue(slide, MPP, TissueConfig(), ArtifactConfig()).mask.note
    assert "of the level of 256 × 128 px can't be read and was taken from finer ones (" in for_ledger
    assert seen.note.startswith(
        "50 % of the level of 256 × 128 px can't be read and was taken from finer ones ("
    )
    assert seen.readable.all()
    # Levels of this slide are decimations of the first, of which these are means.
    rough = np.abs(seen.pixels.astype(float) - expected.pixels)
    assert rough[:, :64].max() == 0
    assert 0 < rough[:, 64:].mean() < 10
    spoil(path, 0, 7)
    with open_slide(path) as slide:
        seen = read_overview(slide, 128, 64)
        for_ledger = analyse_tissue(slide, MPP, TissueConfig(), ArtifactConfig()).mask.note
    assert not seen.readable[:, 64:].any()
    assert seen.readable[:, :64].all()
    assert "50 % of the slide can't be read and counts as tissue" in for_ledger


@pytest.mark.parametrize("level", [0, 1])
def test_a_damaged_frame_of_a_dicom_slide_is_a_failed_read(tmp_path: Path, level: int) -> None:
    pixels = texture(384, 256)
    for number, name in enumerate(("fine.dcm", "coarse.dcm")):
        write_instance(
            tmp_path / name, pixels[:: 1 << number, :: 1 << number].copy(), series="1.2.77",
            uid=f"1.2.77.{number + 1}", mpp=0.25 * (1 << number), jpeg2000=True,
        )  # fmt: skip
    path = tmp_path / ("fine.dcm", "coarse.dcm")[level]
    content = path.read_bytes()
    starts = [match.start() for match in re.finditer(rb"\xff\x4f\xff\x51", content)]
    with open_slide(tmp_path / "fine.dcm") as slide:
        slide.read_region(0, 0, level, 128 >> level, 128 >> level)
    spoilt = starts[1] + (starts[2] - starts[1] if level == 0 else 2000) // 2
    path.write_bytes(content[:spoilt] + bytes(512) + content[spoilt + 512 :])
    with open_slide(tmp_path / "fine.dcm") as slide:
        slide.read_region(0, 0, level, 100, 100)
        with pytest.raises(SlideReadError, match="stored tile 1: parts of the JPEG 2000 tile are zeros"):
            slide.read_region(140 << level, 0, level, 20, 20)


@pytest.mark.real_data
def test_frames_of_a_real_dicom_slide_are_found_and_sound(real_data: Path) -> None:
    path = real_data / "dicom" / "camelyon_multiframe_jpeg2000.dcm"
    (level,) = dicom_levels([path])
    assert all(jpeg2000_damage(level.read(index)) == "" for index in range(28))
    assert len(level.offsets) == 28


def test_lossless_tiles_of_flat_background_are_sound() -> None:
    """Their codestreams repeat themselves, which lossy ones do only where something was written over them."""
    rows = np.random.default_rng(0).integers(120, 200, (1, 256, 3), dtype=np.uint8)
    tile = np.repeat(rows, 256, axis=0)
    stream = imagecodecs.jpeg2k_encode(tile, codecformat="j2k", reversible=True, mct=True)
    assert len(stream) - len(imagecodecs.lz4_encode(stream, header=False)) > 512
    assert jpeg2000_damage(stream) == ""
