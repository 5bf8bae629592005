"""Storages beyond the usual ones: each read by the way that is proven for it, with OpenSlide's pixels."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.tiling.conftest import everything, read_all, texture
from tests.tiling.test_direct_pixels import area_mean, reference
from wsi_ncmi.core.errors import SlideOpenError
from wsi_ncmi.slides import Mpp, open_slide
from wsi_ncmi.slides.tile_decoders import jpeg2000_decoder
from wsi_ncmi.tiling import GridConfig, TileGrid, TileReader

MPP = Mpp(0.25, 0.25, "table")
WIDTH, HEIGHT, EDGE = 500, 400, 128
PIXELS = texture(WIDTH, HEIGHT)
ALPHA = np.dstack((PIXELS, np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)))
GREY = PIXELS[:, :, 0].copy()
PLANES = np.ascontiguousarray(PIXELS.transpose(2, 0, 1))
COLOURS = np.random.default_rng(1).integers(0, 1 << 16, (3, 256)).astype(np.uint16)

# Name → pixels, options of the writer, and the way that they are read.
STORED = {
    "straight alpha": (ALPHA, {"extrasamples": ["unassalpha"]}, "reader"),
    "premultiplied alpha": (ALPHA, {"extrasamples": ["assocalpha"]}, "reader"),
    "alpha, deflate": (ALPHA, {"extrasamples": ["unassalpha"], "compression": "deflate"}, "reader"),
    "separate planes": (PLANES, {"planarconfig": "separate"}, "reader"),
    "separate planes, deflate": (PLANES, {"planarconfig": "separate", "compression": "deflate"}, "reader"),
    "grey": (GREY, {"photometric": "minisblack"}, "reader"),
    "grey jpeg": (GREY, {"photometric": "minisblack", "compression": "jpeg"}, "reader"),
    "white is zero": (GREY, {"photometric": "miniswhite"}, "reader"),
    "palette": (GREY, {"photometric": "palette", "colormap": COLOURS}, "reader"),
    "ycbcr without jpeg": (PIXELS, {"photometric": "ycbcr", "subsampling": (1, 1)}, "reader"),
    "packbits": (PIXELS, {"compression": "packbits"}, "reader"),
    "turned by its orientation": (PIXELS, {"extratags": [(274, 3, 1, 3, True)]}, "reader"),
    "deflate without predictor": (PIXELS, {"compression": "deflate"}, "direct"),
    "lzw without predictor": (PIXELS, {"compression": "lzw"}, "direct"),
    "lzw with predictor": (PIXELS, {"compression": "lzw", "predictor": 2}, "direct"),
    "colour profile": (PIXELS, {"compression": "jpeg", "iccprofile": bytes(128) + b"x" * 300}, "direct"),
    "tiles of 64 x 192": (PIXELS, {"compression": "jpeg", "tile": (192, 64)}, "direct"),
    "a tile larger than the slide": (PIXELS, {"compression": "jpeg", "tile": (512, 1024)}, "direct"),
    "4:1:1": (PIXELS, {"compression": "jpeg", "photometric": "ycbcr", "subsampling": (4, 1)}, "direct"),
    "4:2:2": (PIXELS, {"compression": "jpeg", "photometric": "ycbcr", "subsampling": (2, 1)}, "direct"),
}  # fmt: skip


def check(path: Path, way: str, limit: int) -> TileReader:
    expected = reference(path, 0)
    with open_slide(path) as slide:
        assert slide.reader == "openslide"
        for tile_px, overlap_px in ((EDGE, 0), (90, 17)):
            options = GridConfig(mpp=0.25, tile_px=tile_px, overlap_px=overlap_px)
            grid = TileGrid.plan(slide.levels, MPP, options)
            reader = TileReader(slide, grid, everything(grid))
            assert reader.path == way, reader.reason
            pixels, failed = read_all(reader)
            assert not failed.any()
            for (x, y, right, bottom), tile in zip(grid.level_boxes().astype(int), pixels, strict=True):
                assert np.abs(expected[y:bottom, x:right] - tile).max() <= limit
    return reader


@pytest.mark.parametrize("name", STORED)
def test_stored_otherwise(name: str, tmp_path: Path) -> None:
    pixels, options, way = STORED[name]
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, pixels, **{"tile": (EDGE, EDGE), "photometric": "rgb", "metadata": None} | options)
    # Compositing rounds to nearest, the reference of these tests down.
    reader = check(path, way, 1 if "alpha" in name else 0)
    assert bool(reader.note) == (name == "turned by its orientation")


JPEGS = {
    "progressive": {"progressive": True},
    "own huffman tables": {"optimize": True},
    "restart markers": {"restart_marker_rows": 1},
    "comment": {"comment": b"by hand"},
    "colour profile in the tile": {"icc_profile": bytes(400)},
    "exif orientation in the tile": {"exif": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x03\0\0\0\0\0\0\0"},
    "best quality": {"quality": 100, "subsampling": 0},
    "worst quality": {"quality": 5},
    "full colour called rgb": {"subsampling": 0, "photometric": "rgb"},
}  # fmt: skip


@pytest.mark.parametrize("name", JPEGS)
def test_jpeg_tiles_of_other_encoders(name: str, tmp_path: Path) -> None:
    options = dict(JPEGS[name])
    photometric = options.pop("photometric", "ycbcr")
    subsampling = (1, 1) if options.get("subsampling") == 0 else (2, 2)

    def encode(tile: np.ndarray) -> bytes:
        stream = io.BytesIO()
        Image.fromarray(tile).save(stream, "JPEG", **{"quality": 80} | options)
        return stream.getvalue()

    padded = np.pad(PIXELS, ((0, -HEIGHT % EDGE), (0, -WIDTH % EDGE), (0, 0)), mode="edge")
    streams = [
        encode(padded[y : y + EDGE, x : x + EDGE])
        for y in range(0, HEIGHT, EDGE)
        for x in range(0, WIDTH, EDGE)
    ]
    path = tmp_path / "slide.tif"
    tifffile.imwrite(
        path, iter(streams), shape=PIXELS.shape, dtype=np.uint8, tile=(EDGE, EDGE), compression=7,
        photometric=photometric, metadata=None,
        subsampling=subsampling if photometric == "ycbcr" else None,
    )  # fmt: skip
    check(path, "direct", 0)


@pytest.mark.parametrize("compression", [None, "deflate", "jpeg"])
def test_strips_are_read_as_one_flat_level(compression: str | None, tmp_path: Path) -> None:
    path = tmp_path / "strips.tif"
    tifffile.imwrite(path, PIXELS, compression=compression, photometric="rgb", rowsperstrip=16, metadata=None)
    everything_as_area_means(path, tifffile.imread(path))


@pytest.mark.parametrize("extension", ["png", "jpg"])
def test_flat_images_are_tiled_at_a_given_resolution(extension: str, tmp_path: Path) -> None:
    path = tmp_path / f"flat.{extension}"
    Image.fromarray(PIXELS).save(path)
    everything_as_area_means(path, np.asarray(Image.open(path)))


def everything_as_area_means(path: Path, expected: np.ndarray) -> None:
    """A slide of one level without resolution: native, halved and at an odd ratio, always through its reader."""
    with open_slide(path) as slide:
        assert len(slide.levels) == 1
        for target, limit in ((0.25, 0.0), (0.5, 0.501), (0.613, 0.501)):
            grid = TileGrid.plan(slide.levels, MPP, GridConfig(mpp=target, tile_px=64, overlap_px=9))
            reader = TileReader(slide, grid, everything(grid))
            assert reader.path == "reader"
            pixels, failed = read_all(reader)
            assert not failed.any()
            for box, tile in zip(grid.level_boxes(), pixels, strict=True):
                assert np.abs(area_mean(expected, box, 64) - tile).max() <= limit + 1e-6


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_deep_pixels_are_refused_before_a_tile_is_read(dtype: type, tmp_path: Path) -> None:
    path = tmp_path / "deep.tif"
    tifffile.imwrite(path, PIXELS.astype(dtype), tile=(EDGE, EDGE), photometric="rgb", metadata=None)
    with pytest.raises(SlideOpenError, match="bits per channel, not 8"):
        open_slide(path)


def test_what_only_tiffslide_reads_is_said(tmp_path: Path, make_slide: Callable[..., Path]) -> None:
    path = tmp_path / "big_endian.tif"
    tifffile.imwrite(path, PIXELS, tile=(EDGE, EDGE), photometric="rgb", compression="webp", metadata=None)
    with open_slide(path) as slide:
        assert slide.reader == "tiffslide"
        assert slide.note.startswith(
            "Read by tiffslide, with nothing to compare its pixels to, because openslide"
        )
        assert "Unsupported TIFF compression" in slide.note
    Image.fromarray(PIXELS).save(tmp_path / "flat.png")
    with open_slide(tmp_path / "flat.png") as slide:
        assert slide.note == ""  # no other reader is for flat images


@pytest.mark.parametrize("name", ["ycbcr_422", "ycbcr_420"])
def test_jpeg_2000_with_subsampled_chroma_as_aperio_scanners_store_it(name: str, tmp_path: Path) -> None:
    """The streams were made by OpenJPEG's ``opj_compress -I -mct 0``, which imagecodecs has no option for."""
    stream = (Path(__file__).parent / "data" / f"{name}.j2k").read_bytes()
    path = tmp_path / "slide.svs"
    tifffile.imwrite(
        path, iter([stream] * 6), shape=(128, 192, 3), dtype=np.uint8, tile=(64, 64), compression=33003,
        photometric="rgb", metadata=None, software=False,
        description="Aperio Image Library v1.0\n192x128 |AppMag = 40|MPP = 0.25",
    )  # fmt: skip
    assert np.abs(reference(path, 0)[:64, :64] - texture(64, 64)).mean() < 6  # the colours are right
    with open_slide(path) as slide:
        for tile_px in (64, 50):
            grid = TileGrid.plan(slide.levels, MPP, GridConfig(mpp=0.25, tile_px=tile_px))
            reader = TileReader(slide, grid, everything(grid))
            assert reader.path == "direct", reader.reason
            pixels, failed = read_all(reader)
            assert not failed.any()
            for (x, y, right, bottom), tile in zip(grid.level_boxes().astype(int), pixels, strict=True):
                # Two roundings of the colour transform.
                assert np.abs(reference(path, 0)[y:bottom, x:right] - tile).max() <= 1
    with pytest.raises(ValueError, match="components of different sizes"):
        jpeg2000_decoder(ycbcr=False)(stream, np.empty((64, 64, 3), np.uint8))
