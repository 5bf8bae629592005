"""Readers of an extra: Zeiss CZI, Olympus VSI and Philips iSyntax."""

from __future__ import annotations

import importlib.util
import re
import struct
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import simplejpeg

from tests.slides.czi_file import Block, metadata_of, write_czi
from tests.slides.vsi_file import JPEG, write_vsi
from wsi_ncmi.core.errors import MissingMppError, SlideOpenError
from wsi_ncmi.slides import check_reader, open_slide, resolve_mpp, take_inventory
from wsi_ncmi.slides.czi_reader import CziSlide
from wsi_ncmi.slides.discovery import find_slides
from wsi_ncmi.slides.fastslide_reader import FastSlideSlide
from wsi_ncmi.slides.identity import fingerprint
from wsi_ncmi.slides.openslide_reader import OpenSlideSlide

needs_fastslide = pytest.mark.skipif(
    importlib.util.find_spec("fastslide") is None, reason="fastslide has wheels for Python 3.11 alone"
)


def reduced(pixels: np.ndarray, down: int) -> np.ndarray:
    height, width = (side // down for side in pixels.shape[:2])
    cells = pixels[: height * down, : width * down].reshape(height, down, width, down, 3)
    return cells.mean(axis=(1, 3)).astype(np.uint8)


def pyramid(pixels: np.ndarray, ratio: int, corner: tuple[int, int], scene: int) -> list[Block]:
    blocks = []
    for down in (1, ratio, ratio**2):
        level = reduced(pixels, down) if down > 1 else pixels
        for y in range(0, level.shape[0], 90):
            for x in range(0, level.shape[1], 90):
                place = corner[0] + x * down, corner[1] + y * down
                blocks.append(Block(level[y : y + 90, x : x + 90], *place, down, (("C", 0), ("S", scene))))
    return blocks


@pytest.fixture(params=[2, 3])
def czi(request, tmp_path, kit) -> Path:
    """Two scenes with a gap between them, whose canvas begins neither at 0 nor above it."""
    blocks = pyramid(kit.texture(396, 324), request.param, (-720, 360), 0)
    blocks += pyramid(kit.texture(180, 144, seed=1), request.param, (0, 432), 1)
    return write_czi(tmp_path / "a.czi", blocks, metadata_of(size=(900, 324), scenes=2))


def test_czi_has_openslides_levels_and_pixels(czi):
    with CziSlide(czi) as ours, OpenSlideSlide(czi) as theirs:
        assert ours.level_dimensions == theirs.level_dimensions
        assert ours.level_downsamples == pytest.approx(theirs.level_downsamples)
        assert (ours.vendor, ours.mpp) == (theirs.vendor, theirs.mpp) == ("zeiss", 0.25)
        assert "2 scenes" in ours.note
        for number, level in enumerate(ours.levels):
            down = int(level.downsample_x)
            for x, y, width, height in ((0, 0, 200, 150), (-4, -5, 40, 30), (31, 23, 101, 1), (90, 8, 1, 50)):
                box = x * down, y * down, number, width, height
                np.testing.assert_array_equal(ours.read_region(*box), theirs.read_region(*box), str(box))
        # Between the scenes there is nothing.
        alpha = np.asarray(ours.read_region((396, 0), 0, (324, 324)))[:, :, 3]
        assert not alpha.any()


def test_a_czi_that_openslide_reads_is_openslides(czi):
    with open_slide(czi) as slide:
        assert slide.reader == "openslide"
    with open_slide(czi, "czi") as slide:
        assert slide.reader == "czi"


def test_czi_passes_the_kit(tmp_path, kit):
    blocks = [
        block._replace(dimensions=(("T", 0), ("C", 0)))
        for block in pyramid(kit.texture(300, 260), 2, (5, 7), 0)
    ]
    path = write_czi(tmp_path / "a.czi", blocks)
    check_reader(path, mpp=0.25)
    with open_slide(path) as slide:
        assert slide.reader == "czi"
        assert "because openslide refuses it" in slide.note


def test_a_level_that_a_scene_lacks_is_no_level(tmp_path, kit):
    blocks = pyramid(kit.texture(180, 180), 2, (0, 0), 0) + pyramid(kit.texture(180, 180), 2, (360, 0), 1)[:4]
    with CziSlide(write_czi(tmp_path / "a.czi", blocks)) as slide:
        assert slide.level_dimensions == ((540, 180),)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ((("C", 1),), "2 channels (fluorescence)"),
        ((("C", 0), ("Z", 4)), "5 focal planes"),
        ((("C", 0), ("T", 1)), "2 points in time"),
    ],
)
def test_czi_of_several_planes_is_refused_in_words(tmp_path, kit, more, told):
    first = tuple((name, 0) for name, _ in more)
    blocks = [Block(kit.texture(64, 64), 0, 0, 1, planes) for planes in (first, more)]
    with pytest.raises(SlideOpenError, match=re.escape(told)):
        open_slide(write_czi(tmp_path / "a.czi", blocks))


@pytest.mark.parametrize("kind", ["uint8", "uint16"])
def test_a_grey_czi_is_refused_in_words(tmp_path, kind):
    path = write_czi(tmp_path / "a.czi", [Block(np.zeros((64, 64), kind), 0, 0)])
    with pytest.raises(SlideOpenError, match=rf"of the kind Gray{kind[4:]} \(fluorescence\?\)"):
        open_slide(path)


def test_a_czi_without_resolution_says_so_and_names_nobody(tmp_path, kit):
    path = write_czi(tmp_path / "a.czi", [Block(kit.texture(64, 64), 0, 0)], metadata_of(None))
    with CziSlide(path) as slide:
        assert not slide.properties
        with pytest.raises(MissingMppError):
            resolve_mpp(slide)


@pytest.mark.real_data
def test_a_real_czi_has_the_bytes_of_its_file(real_data):
    path = real_data / "czi" / "RGB-8bit.czi"
    content = path.read_bytes()
    block = content.index(b"ZISRAWSUBBLOCK") + 32
    metadata, _, size = struct.unpack_from("<iiq", content, block)
    stored = np.frombuffer(content, np.uint8, size, block + 256 + metadata).reshape(624, 924, 3)
    with open_slide(path) as slide:
        assert (slide.reader, slide.dimensions, round(slide.mpp, 4)) == ("czi", (924, 624), 1.0833)
        np.testing.assert_array_equal(slide.read_region(0, 0, 0, 924, 624), stored[:, :, ::-1])
    (record,) = take_inventory(path)
    assert (record.problem, record.mpp_source, record.vendor) == ("", "vendor", "zeiss")


@pytest.fixture
def vsi(tmp_path, kit) -> Path:
    pixels = kit.texture(600, 500)
    return write_vsi(tmp_path / "a.vsi", [pixels, reduced(pixels, 2)])


@needs_fastslide
def test_vsi_has_the_pixels_that_were_written(vsi, kit):
    with open_slide(vsi) as slide:
        assert (slide.reader, slide.vendor) == ("fastslide", "olympus-vsi")
        np.testing.assert_array_equal(slide.read_region(0, 0, 0, 600, 500), kit.texture(600, 500))
        expected = reduced(kit.texture(600, 500), 2)[40:240, 30:130]
        np.testing.assert_array_equal(slide.read_region(60, 80, 1, 100, 200), expected)
        assert "compared with nothing" in slide.note


@needs_fastslide
def test_vsi_passes_the_kit(vsi):
    check_reader(vsi)


@needs_fastslide
@pytest.mark.parametrize("subsampling", ["444", "420"])
def test_vsi_jpeg_is_decoded_fast_and_without_interpolated_colour(tmp_path, kit, subsampling):
    pixels = np.ascontiguousarray(kit.texture(256, 256))
    stored = simplejpeg.encode_jpeg(pixels, 90, "RGB", subsampling)
    path = write_vsi(tmp_path / "a.vsi", [pixels], JPEG, lambda tile: stored)
    with open_slide(path) as slide:
        found = slide.read_region(0, 0, 0, 256, 256)
    np.testing.assert_array_equal(found, simplejpeg.decode_jpeg(stored, fastdct=True, fastupsample=True))


def test_a_vsi_counts_once_with_its_folder_and_its_label_counts_for_nothing(vsi, tmp_path):
    (found,) = find_slides(tmp_path)
    assert (found.relative, [file.name for file in found.companions]) == ("a.vsi", ["frame_t.ets"])
    before = fingerprint(found.path, found.companions)
    label = bytearray(vsi.read_bytes())
    label[-2000:] = bytes(2000)
    vsi.write_bytes(label)
    assert fingerprint(found.path, found.companions) == before
    with pytest.raises(SlideOpenError, match="for which the reader openslide isn't made"):
        open_slide(vsi, "openslide")


@needs_fastslide
def test_a_vsi_without_its_folder_is_refused_and_its_label_is_not_read(vsi):
    vsi.with_name("_a_").rename(vsi.with_name("elsewhere"))
    with pytest.raises(
        SlideOpenError, match=r"a.vsi can't be opened as a slide \(fastslide: .*no stack\S+ files found\)"
    ):
        open_slide(vsi)


@needs_fastslide
@pytest.mark.real_data
def test_the_real_slide_through_fastslide(real_data):
    path = real_data / "slides" / "CMU-1-Small-Region.svs"
    with FastSlideSlide(path) as ours, OpenSlideSlide(path) as theirs:
        assert (ours.dimensions, ours.mpp) == (theirs.dimensions, 0.499)
        box = 700, 900, 0, 800, 600
        assert np.abs(ours.read_region(*box).astype(int) - theirs.read_region(*box)).max() <= 2


class StandIn:
    """The part of pyisyntax 0.1.7 that is used, on an array; no real iSyntax file is free to be had."""

    threads: ClassVar[set[int]] = set()

    def __init__(self, file, size, cache_size=2000):
        self.threads.add(threading.get_ident())
        self._pixels, self._file = np.load(file), file
        self.level_dimensions = [
            (shape[1], shape[0]) for shape in (self._pixels.shape, self._pixels[::2, ::2].shape)
        ]
        self.level_downsamples, self.mpp_x, self.mpp_y = [1, 2], 0.25, 0.25

    def read_region(self, x, y, width, height, level=0):
        self.threads.add(threading.get_ident())
        return self._pixels[:: 2**level, :: 2**level][y : y + height, x : x + width].copy()

    def close(self):
        self._file.close()


@pytest.fixture
def isyntax(tmp_path, kit, monkeypatch) -> Path:
    """RGBA with places that the scanner left out."""
    pixels = np.dstack([kit.texture(300, 260), np.full((260, 300), 255, np.uint8)])
    pixels[64:128, 64:128] = 255, 255, 255, 0
    with (tmp_path / "a.isyntax").open("wb") as file:
        np.save(file, pixels)
    monkeypatch.setattr("isyntax.ISyntax", StandIn)
    StandIn.threads.clear()
    return tmp_path / "a.isyntax"


def test_isyntax_by_a_stand_in(isyntax, kit, monkeypatch):
    # The kit's other process would have the real library.
    monkeypatch.setattr("wsi_ncmi.slides.testing._faults_elsewhere", lambda path: [])
    check_reader(isyntax, mpp=0.25)
    assert len(StandIn.threads) == 1
    with open_slide(isyntax) as slide:
        assert (slide.reader, slide.vendor, slide.mpp) == ("isyntax", "philips", 0.25)
        found = slide.read_region(0, 0, 0, 300, 260)
        assert (found[64:128, 64:128] == 255).all()
        np.testing.assert_array_equal(found[128:], kit.texture(300, 260)[128:])


@pytest.mark.parametrize(
    "content", [b"no slide " * 99, b'<DataObject ObjectType="DPUfsImport">\x04' + bytes(999)]
)
def test_no_isyntax_is_refused_by_the_real_library(tmp_path, content, capfd):
    (tmp_path / "a.isyntax").write_bytes(content)
    with pytest.raises(SlideOpenError, match="no sound iSyntax content"):
        open_slide(tmp_path / "a.isyntax")
    capfd.readouterr()  # the library writes to the terminal


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [
        ("a.czi", "pylibCZIrw", "czi"),
        ("a.isyntax", "pyisyntax", "isyntax"),
        ("a.vsi", "fastslide", "fastslide"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(tmp_path, without, name, package, extra):
    without(SimpleNamespace(pyisyntax="isyntax").__dict__.get(package, package))
    (tmp_path / name).write_bytes(b"content " * 99)
    with pytest.raises(SlideOpenError) as caught:
        open_slide(tmp_path / name)
    assert str(caught.value).startswith(f"{name} can't be opened as a slide")
    assert str(caught.value).endswith(f'; it needs {package}: pip install "wsi-ncmi[{extra}]".')


def test_ids_do_not_depend_on_what_is_installed(tmp_path):
    for name in ("philips/S1.isyntax", "converted/S1.tiff", "S2.vsi"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    ids = {record.path: record.slide_id for record in take_inventory(tmp_path)}
    assert ids == {"converted/S1.tiff": "S1", "philips/S1.isyntax": "philips__S1", "S2.vsi": "S2"}
