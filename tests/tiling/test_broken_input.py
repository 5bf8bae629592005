"""Damaged slides of every storage, read in a process of their own: no crash, and no tile that is not the slide's.

Native code reads what others wrote; what ends the process can't be caught, only found.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests.tiling.conftest import Kind, everything, read_all
from wsi_ncmi.core.errors import SlideOpenError
from wsi_ncmi.slides import Mpp, open_slide
from wsi_ncmi.slides.tile_decoders import jpeg2000_decoder
from wsi_ncmi.tiling import GridConfig, TileGrid, TileReader

ROOT = Path(__file__).parents[2]
KINDS = {
    "svs": Kind(shared_tables=True, vendor="aperio", tile=(128, 128), factors=(1, 2)),
    "bigtiff": Kind(tile=(128, 128), bigtiff=True, absent=frozenset({3, 17}), factors=(1, 2)),
    "jpeg 2000": Kind("j2k-ycbcr", vendor="aperio", tile=(128, 128), factors=(1, 2)),
    "deflate": Kind("deflate", tile=(128, 128), factors=(1,)),
}


def examine(source: Path, folder: Path, mode: str, count: int, seed: int = 0) -> list[dict[str, object]]:
    """The outcomes of damaged copies; fails when the process did not end by itself after the last one."""
    command = [sys.executable, "-m", "tests.tiling.examine", source, folder, mode, str(count), str(seed)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(outcomes) == count
    return outcomes


@pytest.mark.parametrize("name", KINDS)
def test_cut_at_random_places(name: str, make_slide: Callable[..., Path], tmp_path: Path) -> None:
    path = make_slide(500, 400, KINDS[name])
    outcomes = examine(path, tmp_path, "cut", 50)
    assert all(
        "truncated or damaged" in str(outcome["refused"]) or not outcome["wrong"] for outcome in outcomes
    )
    assert sum(bool(outcome["refused"]) for outcome in outcomes) >= 45
    assert not any(str(tmp_path) in str(outcome["refused"]) for outcome in outcomes)


@pytest.mark.parametrize("name", ["svs", "jpeg 2000"])
def test_cut_while_it_is_read(name: str, make_slide: Callable[..., Path], tmp_path: Path) -> None:
    outcomes = examine(make_slide(500, 400, KINDS[name]), tmp_path, "cut while open", 25)
    assert not any(outcome["wrong"] for outcome in outcomes)
    assert not any(outcome["refused"] for outcome in outcomes)
    assert sum(int(outcome["failed"]) for outcome in outcomes) > 0.4 * sum(int(o["read"]) for o in outcomes)


@pytest.mark.parametrize("name", KINDS)
def test_bytes_changed_at_random_places_never_end_the_process(
    name: str, make_slide: Callable[..., Path], tmp_path: Path
) -> None:
    """A byte changed inside a compressed tile may decode to something: only crashes and refusals count."""
    outcomes = examine(make_slide(500, 400, KINDS[name]), tmp_path, "spoil", 30)
    assert any(outcome["refused"] for outcome in outcomes)
    assert any(outcome["failed"] for outcome in outcomes)


@pytest.mark.real_data
def test_the_real_slide_cut_at_random_places(real_data: Path, tmp_path: Path) -> None:
    path = real_data / "slides" / "CMU-1-Small-Region.svs"
    outcomes = examine(path, tmp_path, "cut", 50)
    assert not any(outcome["wrong"] for outcome in outcomes)
    assert sum(bool(outcome["refused"]) for outcome in outcomes) >= 45
    outcomes = examine(path, tmp_path, "cut while open", 3)
    assert not any(outcome["wrong"] for outcome in outcomes)
    assert any(outcome["failed"] for outcome in outcomes)


def patched(source: Path, values: dict[int, int], page: int = 0) -> Path:
    """A copy with other numbers in a directory: tag → value."""
    path = source.with_name("patched" + source.suffix)
    content = bytearray(source.read_bytes())
    with tifffile.TiffFile(source) as file:
        for tag, value in values.items():
            entry = file.pages[page].tags[tag]
            struct.pack_into({3: "<H", 4: "<I"}[int(entry.dtype)], content, entry.valueoffset, value)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("page", [0, 1])
@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({256: 0}, "claims 0 × "),
        ({257: 0}, " × 0 px"),
        ({322: 0}, "in tiles of 0 × 128 px"),
        ({323: 0}, "in tiles of 128 × 0 px"),
        ({256: 2**31 - 1}, "claims 2147483647 × "),
        ({257: 2**32 - 1}, " × 4294967295 px"),
        ({256: 60_000}, "claims 60000 × "),
        ({256: 9_000_000, 257: 9_000_000}, "but lists "),
        ({322: 16}, "but lists "),
        ({322: 65_520, 323: 65_520}, "in tiles of 65520 × 65520 px"),
    ],
)
def test_sizes_that_the_table_of_tiles_does_not_bear_out_are_refused(
    values: dict[int, int], reason: str, page: int, make_slide: Callable[..., Path]
) -> None:
    """OpenSlide opens most of these: it gives background for tiles that are not listed."""
    path = patched(make_slide(700, 600, Kind(tile=(128, 128), factors=(1, 2))), values, page)
    with pytest.raises(SlideOpenError, match=r"patched\.tif is truncated or damaged") as caught:
        open_slide(path)
    assert reason in str(caught.value)


def test_tiles_of_another_size_than_the_directory_says_fail(make_slide: Callable[..., Path]) -> None:
    path = patched(make_slide(700, 600, Kind(tile=(128, 128), factors=(1,))), {322: 256})
    with open_slide(path) as slide:
        grid = TileGrid.plan(slide.levels, Mpp(0.25, 0.25, "table"), GridConfig(mpp=0.25, tile_px=100))
        for route in ("auto", "reader"):
            pixels, failed = read_all(TileReader(slide, grid, everything(grid), path=route))
            assert failed.all()
            assert not pixels.any()


def first_tile_replaced(source: Path, stream: bytes) -> Path:
    path = source.with_name("bomb" + source.suffix)
    content = bytearray(source.read_bytes())
    with tifffile.TiffFile(source) as file:
        tags = file.pages.first.tags
        struct.pack_into("<I", content, tags[324].valueoffset, len(content))
        struct.pack_into("<I", content, tags[325].valueoffset, len(stream))
    path.write_bytes(bytes(content) + stream)
    return path


def test_a_deflate_tile_that_unfolds_to_hundreds_of_megabytes_fails(make_slide: Callable[..., Path]) -> None:
    bomb = zlib.compress(bytes(200 << 20))  # within what may be stored, a thousand times what a tile may have
    path = first_tile_replaced(make_slide(512, 512, Kind("deflate", factors=(1,))), bomb)
    with open_slide(path) as slide:
        grid = TileGrid.plan(slide.levels, Mpp(0.25, 0.25, "table"), GridConfig(mpp=0.25, tile_px=256))
        reader = TileReader(slide, grid, everything(grid))
        assert reader.path == "direct"
        _, failed = read_all(reader)
    assert failed.tolist() == [True, False, False, False]


def test_a_jpeg_2000_tile_that_claims_gigapixels_fails_before_memory_is_taken(
    make_slide: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import imagecodecs

    source = make_slide(512, 512, Kind("j2k-rgb", vendor="aperio", factors=(1,)))
    with tifffile.TiffFile(source) as file:
        offset, size = file.pages.first.dataoffsets[0], file.pages.first.databytecounts[0]
    stream = bytearray(source.read_bytes()[offset : offset + size])
    out = np.empty((256, 256, 3), np.uint8)
    jpeg2000_decoder(ycbcr=False)(bytes(stream), out)
    struct.pack_into(">II", stream, 8, 60_000, 60_000)

    def decode(*arguments: object, **more: object) -> None:
        raise AssertionError("the decoder was asked")

    monkeypatch.setattr(imagecodecs, "jpeg2k_decode", decode)
    with pytest.raises(ValueError, match=r"has the shape \(60000, 60000\) instead of \(256, 256\)"):
        jpeg2000_decoder(ycbcr=False)(bytes(stream), out)
    for wrong in (b"", b"\xff\x4f\xff\x51", b"\xff\xd8 a jpeg" * 9):
        with pytest.raises(ValueError, match="no JPEG 2000 codestream"):
            jpeg2000_decoder(ycbcr=False)(wrong, out)


def test_a_tile_that_claims_more_bytes_than_an_image_can_have_is_not_read(
    make_slide: Callable[..., Path],
) -> None:
    path = make_slide(512, 512, Kind("none", factors=(1,)))
    path = first_tile_replaced(path, bytes(6 * 256 * 256 + (1 << 16) + 1))
    with open_slide(path) as slide:
        grid = TileGrid.plan(slide.levels, Mpp(0.25, 0.25, "table"), GridConfig(mpp=0.25, tile_px=256))
        _, failed = read_all(TileReader(slide, grid, everything(grid)))
    assert failed.tolist() == [True, False, False, False]
