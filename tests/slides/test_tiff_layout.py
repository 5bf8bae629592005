"""The directory parser against tifffile, and against files made to break it."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wsi_ncmi.slides.tiff_layout import read_tiff_layout


def _assert_like_tifffile(path):
    layout = read_tiff_layout(path)
    with tifffile.TiffFile(path) as file:
        pages = [page for top in file.pages for page in (top, *(top.pages or ()))]
        assert layout.damage == ""
        assert [directory.tiled for directory in layout.directories] == [page.is_tiled for page in pages]
        for directory, page in zip(layout.directories, pages, strict=True):
            assert directory.offsets.tolist() == list(page.dataoffsets)
            assert directory.byte_counts.tolist() == list(page.databytecounts)
    return layout


def test_same_tables_as_tifffile(svs, generic, tmp_path, kit):
    layout = _assert_like_tifffile(svs)
    assert [directory.tiled for directory in layout.pixel_directories] == [True, True]
    _assert_like_tifffile(generic)
    _assert_like_tifffile(kit.write_sparse_tiff(tmp_path / "sparse.tif", kit.texture(), {0, 7}))


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("shape", [(20, 30), (700, 600)])
def test_both_byte_orders_and_sizes_of_offset_with_sub_directories(tmp_path, byteorder, bigtiff, shape):
    path = tmp_path / "a.ome.tif"
    pixels = np.arange(np.prod(shape)).reshape(shape).astype(np.uint8)
    with tifffile.TiffWriter(path, byteorder=byteorder, bigtiff=bigtiff) as writer:
        writer.write(pixels, tile=(128, 128), subifds=2)
        writer.write(pixels[::2, ::2].copy(), tile=(128, 128))
        writer.write(pixels[::4, ::4].copy(), tile=(128, 128))
        writer.write(pixels, rowsperstrip=7)
    layout = _assert_like_tifffile(path)
    assert [directory.tiled for directory in layout.directories] == [True, True, True, False]


def test_strips_are_the_pixels_only_where_nothing_is_tiled(tmp_path):
    path = tmp_path / "flat.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(np.zeros((10, 10), np.uint8))
        writer.write(np.zeros((50, 50), np.uint8))
    layout = read_tiff_layout(path)
    assert layout.pixel_directories == (layout.directories[1],)


@pytest.mark.parametrize(
    "content", [b"", b"II", b"not a tiff at all", b"II*\0", b"\x89PNG\r\n\x1a\n" + b"\0" * 20]
)
def test_other_files_are_no_tiff(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    assert read_tiff_layout(tmp_path / "a") is None


def _classic(*directories: tuple[list[tuple[int, int, int, int]], int]) -> bytes:
    data = b"II" + struct.pack("<HI", 42, 8)
    for entries, following in directories:
        data += struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
        data += struct.pack("<I", following)
    return data


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"II" + struct.pack("<HI", 42, 0), "no image directory"),
        (b"II" + struct.pack("<HI", 42, 9999), "image directory at byte 9999 lies beyond its end"),
        (b"II" + struct.pack("<HI", 43, 8), "ends inside its header"),
        (_classic(([(256, 4, 1, 5)], 8)), "form a loop"),
        (_classic(([(330, 4, 1, 8)], 0)), "form a loop"),
        (b"II" + struct.pack("<HIH", 42, 8, 60000) + b"\0" * 100, "claims 60000 entries"),
        (_classic(([(324, 4, 1, 8), (325, 4, 1, 900)], 0)), "1 of its 1 stored tiles lie beyond its end"),
        (_classic(([(273, 4, 1, 8), (279, 4, 1, 0)], 0)), "1 of its 1 strips hold nothing"),
        (_classic(([(324, 4, 1, 0xFFFFFFF0), (325, 4, 1, 0xFFFFFFFF)], 0)), "1 of its 1 stored tiles"),
        (_classic(([(324, 4, 0xFFFFFFFF, 8)], 0)), "tile table at byte 8 lies beyond"),
        (_classic(([(324, 2, 1, 8), (325, 4, 1, 1)], 0)), "wrong type 2"),
        (_classic(([(324, 4, 1, 8)], 0)), "lists 1 offsets for 0 sizes"),
        (_classic(([(273, 4, 1, 8), (279, 4, 1, 900)], 0)), "1 of its 1 stored strips"),
    ],
)  # fmt: skip
def test_damage_is_named(tmp_path, data, reason):
    (tmp_path / "a.tif").write_bytes(data)
    assert reason in read_tiff_layout(tmp_path / "a.tif").damage


def test_sizes_of_64_bits_do_not_wrap_around(tmp_path):
    entries = [(324, 16, 1, 16), (325, 16, 1, 2**64 - 8)]
    data = b"II" + struct.pack("<HHHQ", 43, 8, 0, 16) + struct.pack("<Q", 2)
    data += b"".join(struct.pack("<HHQQ", *entry) for entry in entries) + struct.pack("<Q", 0)
    (tmp_path / "a.tif").write_bytes(data)
    assert "1 of its 1 stored tiles" in read_tiff_layout(tmp_path / "a.tif").damage


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.sampled_from([b"II*\0", b"MM\0*", b"II+\0\x08\0\0\0", b"MM\0+\0\x08\0\0"]))
def test_no_bytes_crash_the_parser(tmp_path, tail, head):
    path = tmp_path / "fuzz.tif"
    path.write_bytes(head + tail)
    layout = read_tiff_layout(path)
    assert layout is None or layout.damage or layout.directories


def _ndpi(directory_at: int) -> list[tuple[int, bytes]]:
    """A Hamamatsu file with 64-bit directory links: its strip of 4 bytes lies 64 bytes in front of the directory."""
    entries = [(273, 4, 1, (directory_at - 64) & 0xFFFFFFFF), (279, 4, 1, 4), (65420, 4, 1, 1)]
    body = (
        struct.pack("<H", 3)
        + b"".join(struct.pack("<HHII", *entry) for entry in entries)
        + struct.pack("<Q", 0)
    )
    return [(0, b"II" + struct.pack("<HQ", 42, directory_at)), (directory_at, body)]


@pytest.mark.parametrize("directory_at", [200, (5 << 30) + 4096, (4 << 30) + 16])
def test_ndpi_offsets_beyond_4_gib(tmp_path, directory_at):
    path = tmp_path / "a.ndpi"  # a sparse file: it takes no room on the disk
    with path.open("wb") as handle:
        for offset, data in _ndpi(directory_at):
            handle.seek(offset)
            handle.write(data)
    layout = read_tiff_layout(path)
    assert (layout.ndpi, layout.damage) == (True, "")
    assert layout.directories[0].offsets.tolist() == [directory_at - 64]
