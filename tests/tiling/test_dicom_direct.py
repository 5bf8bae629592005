"""Frames of DICOM series decoded directly: the reader's pixels, and those of the same tiles in a TIFF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tests.slides.dicom_slide import copied_tiles, cut, encode, write_level
from tests.tiling.conftest import everything, read_all, texture
from wsi_ncmi.encoders import EncoderConfig, load_encoder
from wsi_ncmi.slides import Mpp, Slide, open_slide
from wsi_ncmi.tiling import GridConfig, TileGrid, TileReader, select_tiles
from wsi_ncmi.tissue import TissueConfig, segment_tissue

MPP = Mpp(0.25, 0.25, "table")
EDGE, SIZE = 128, (400, 330)
PIXELS = texture(*SIZE)


def write(path: Path, kind: str, *, cut_edges: bool = False, **options: Any) -> Path:
    tiles = cut(PIXELS, EDGE)
    if cut_edges:
        sides = [(min(EDGE, SIZE[1] - y), min(EDGE, SIZE[0] - x)) for y in range(0, SIZE[1], EDGE)
                 for x in range(0, SIZE[0], EDGE)]  # fmt: skip
        tiles = [
            np.ascontiguousarray(t[: h + h % 2, : w + w % 2]) for t, (h, w) in zip(tiles, sides, strict=True)
        ]
    write_level(path, [encode(tile, kind) for tile in tiles], SIZE, EDGE, kind=kind, **options)
    return path


def opened(slide: Slide, path: str = "auto", **options: Any) -> TileReader:
    grid = TileGrid.plan(slide.levels, MPP, GridConfig(**{"mpp": 0.25, "tile_px": 100} | options))
    return TileReader(slide, grid, everything(grid), path=path)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(
    ("kind", "cut_edges"),
    [("none", False), *((kind, cut_edges) for kind in ("jpeg", "j2k", "jpegls") for cut_edges in (False, True))],
)  # fmt: skip
def test_frames_are_the_readers_pixels(tmp_path: Path, kind: str, sparse: bool, cut_edges: bool) -> None:
    path = write(tmp_path / "a.dcm", kind, sparse=sparse, cut_edges=cut_edges)
    with open_slide(path) as slide, opened(slide) as direct, opened(slide, "reader") as through:
        pixels, failed = read_all(direct)
        assert (direct.path, failed.any()) == ("direct", False)
        np.testing.assert_array_equal(pixels, read_all(through)[0])


def test_parts_in_several_files_are_read_directly(tmp_path: Path) -> None:
    frames = [encode(tile, "jpeg") for tile in cut(PIXELS, EDGE)]
    for number, (start, stop) in enumerate(((0, 5), (5, 12)), 1):
        write_level(
            tmp_path / f"{number}.dcm", frames[start:stop], SIZE, EDGE, kind="jpeg", part=(number, 2, start)
        )
    whole = write(tmp_path / "whole.dcm", "jpeg", series="1.2.78")
    with (
        open_slide(tmp_path / "1.dcm") as slide, open_slide(whole) as other,
        opened(slide) as direct, opened(other) as expected,
    ):  # fmt: skip
        assert direct.path == "direct"
        np.testing.assert_array_equal(read_all(direct)[0], read_all(expected)[0])


@pytest.mark.parametrize("factor", [2, 4])
def test_reduced_decoding_of_cut_frames_is_that_of_whole_ones(tmp_path: Path, factor: int) -> None:
    pixels = []
    for cut_edges in (False, True):
        path = write(tmp_path / f"{cut_edges}.dcm", "jpeg", cut_edges=cut_edges, series=f"1.2.{cut_edges:d}")
        with (
            open_slide(path) as slide,
            opened(slide, mpp=0.25 * factor, tile_px=32, scaled_decoding=True) as reader,
        ):
            assert (reader.path, reader.decoding_factor) == ("direct", factor)
            pixels.append(read_all(reader)[0].astype(int))
    # At the edge that is cut the encoder sees other neighbours.
    assert np.abs(pixels[0] - pixels[1]).mean() < 1


@pytest.mark.parametrize("kind", ["jpeg", "j2k", "jpegls"])
def test_a_damaged_frame_costs_its_own_tiles(tmp_path: Path, kind: str) -> None:
    frames = [encode(tile, kind) for tile in cut(PIXELS, EDGE)]
    frames[5] = frames[5][: len(frames[5]) // 2]
    path = tmp_path / "a.dcm"
    write_level(path, frames, SIZE, EDGE, kind=kind)
    with open_slide(path, compare_levels=False) as slide, opened(slide, tile_px=EDGE) as reader:
        failed = read_all(reader)[1]
        assert reader.path == "direct"
        assert failed.tolist() == [
            index == 4 for index in range(6)
        ]  # three whole tiles a row, of four stored


@pytest.fixture(scope="module")
def real_tiles(real_data: Path) -> tuple[list[bytes], int]:
    """Streams of 4 × 4 tiles of the real slide."""
    frames, size, edge = copied_tiles(real_data / "slides" / "CMU-1-Small-Region.svs")
    across = -(-size[0] // edge)
    return [frames[row * across + column] for row in range(4, 8) for column in range(4, 8)], edge


def write_tiff(path: Path, frames: list[bytes], edge: int) -> Path:
    shape = (4 * edge, 4 * edge, 3)
    tifffile.imwrite(
        path, iter(frames), shape=shape, dtype=np.uint8, tile=(edge, edge), photometric="rgb", compression=7,
        metadata=None, compressionargs={"outcolorspace": "rgb"}, software=False, description="Aperio Image Library v1.0\n|MPP = 0.499",
    )  # fmt: skip
    return path


STORED: dict[str, dict[str, Any]] = {
    "DICOM": {}, "DICOM without extension": {"name": "IM000001"}, "DICOM, sparse": {"sparse": True},
    "DICOM, no table": {"offsets": "empty"}, "DICOM, extended table": {"offsets": "extended"},
    "DICOM in parts": {"parts": 3}, "DICOM in parts and folders": {"parts": 3, "folders": True},
    "DICOM, JPEG 2000": {"kind": "j2k-lossless"}, "DICOM, JPEG-LS": {"kind": "jpegls"},
    "DICOM, not compressed": {"kind": "none"},
}  # fmt: skip


def write_stored(
    folder: Path, frames: list[bytes], edge: int, *, kind: str = "jpeg", name: str = "a.dcm", parts: int = 1,
    folders: bool = False, **options: Any,
) -> tuple[Path, ...]:  # fmt: skip
    import simplejpeg

    if kind != "jpeg":
        frames = [encode(simplejpeg.decode_jpeg(frame), kind) for frame in frames]
    bounds = np.linspace(0, len(frames), parts + 1).astype(int).tolist()
    files = []
    for number in range(parts):
        path = folder / (str(number) if folders else "") / (name if parts == 1 else f"{number}.dcm")
        path.parent.mkdir(exist_ok=True)
        write_level(
            path, frames[bounds[number] : bounds[number + 1]], (4 * edge, 4 * edge), edge, kind=kind, mpp=0.499,
            photometric="YBR_RCT" if kind.startswith("j2k") else "RGB",
            part=(number + 1, parts, bounds[number]) if parts > 1 else None, **options,
        )  # fmt: skip
        files.append(path)
    return tuple(files)


def tiles_of(slide: Slide) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates and pixels of the tiles with tissue, as extraction takes them."""
    mpp = Mpp(0.499, 0.499, "vendor")
    mask = segment_tissue(slide, mpp, TissueConfig())
    grid = TileGrid.plan(slide.levels, mpp, GridConfig(mpp=0.499, tile_px=224))
    selection = select_tiles(grid, mask, 0.5)
    with TileReader(slide, grid, selection) as reader:
        pixels, failed = read_all(reader)
        assert (reader.path, failed.any()) == ("direct", False)
    return selection.coords, pixels


@pytest.fixture(scope="module")
def expected(
    real_tiles: tuple[list[bytes], int], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, Any]:
    with open_slide(write_tiff(tmp_path_factory.mktemp("tiff") / "a.tif", *real_tiles)) as slide:
        return tiles_of(slide)


@pytest.mark.real_data
@pytest.mark.parametrize("name", STORED)
def test_the_same_slide_gives_the_same_tiles_however_it_is_stored(
    tmp_path: Path, real_tiles: tuple[list[bytes], int], expected: tuple[Any, Any], name: str
) -> None:
    with open_slide(write_stored(tmp_path, *real_tiles, **STORED[name])) as slide:
        coords, pixels = tiles_of(slide)
    assert len(coords) > 8
    np.testing.assert_array_equal(coords, expected[0])
    np.testing.assert_array_equal(pixels, expected[1])


@pytest.mark.real_data
def test_features_are_equal_bit_for_bit(
    tmp_path: Path, real_tiles: tuple[list[bytes], int], expected: tuple[Any, Any]
) -> None:
    embed = load_encoder(EncoderConfig(name="descriptor")).encode
    with open_slide(write_stored(tmp_path, *real_tiles, kind="jpegls")) as slide:
        found = embed(tiles_of(slide)[1][:2])
    np.testing.assert_array_equal(found, embed(expected[1][:2]))
