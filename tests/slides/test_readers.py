"""The three readers against the pixels that were written and against each other."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openslide
import pytest
import tifffile
from openslide.deepzoom import DeepZoomGenerator
from PIL import Image

from wsi_ncmi.core.errors import InputError, SlideOpenError, SlideReadError
from wsi_ncmi.slides import list_readers, open_slide, probe_against_openslide
from wsi_ncmi.slides.image_reader import MAX_IMAGE_PX
from wsi_ncmi.slides.registry import import_reason

EVERY = ("openslide", "tiffslide")


def test_readers_come_in_their_order_and_say_whether_they_work():
    names = [reader.name for reader in list_readers()]
    assert names[:2] == ["openslide", "tiffslide"]
    assert names[-4:] == ["czi", "isyntax", "fastslide", "image"]
    assert all(reader.is_available for reader in list_readers())
    assert "no_such_package" in import_reason("no_such_package")


@pytest.mark.parametrize("reader", EVERY)
def test_lossless_slide_gives_the_pixels_that_were_written(generic, kit, reader):
    pixels = kit.texture()
    with open_slide(generic, reader) as slide:
        assert slide.reader == reader
        assert slide.vendor == "generic-tiff"
        assert [(level.width_px, level.height_px, level.downsample_x) for level in slide.levels] == [
            (700, 600, 1.0),
            (350, 300, 2.0),
        ]
        np.testing.assert_array_equal(slide.read_region(0, 0, 0, 700, 600), pixels)
        np.testing.assert_array_equal(slide.read_region(100, 60, 1, 33, 21), pixels[::2, ::2][30:51, 50:83])


@pytest.mark.parametrize("reader", EVERY)
@pytest.mark.parametrize(
    "box",
    [(-20, -30, 64, 64), (680, 570, 64, 64), (-10, -10, 900, 800), (5000, 5000, 8, 8), (-500, 0, 16, 16)],
)
def test_places_outside_the_slide_are_white(generic, kit, reader, box):
    x, y, width, height = box
    expected = np.full((height, width, 3), 255, np.uint8)
    pixels = kit.texture()
    for row in range(height):
        for column in range(width):
            if 0 <= y + row < 600 and 0 <= x + column < 700:
                expected[row, column] = pixels[y + row, x + column]
    with open_slide(generic, reader) as slide:
        np.testing.assert_array_equal(slide.read_region(x, y, 0, width, height), expected)


@pytest.mark.parametrize("reader", EVERY)
def test_jpeg_slide_equals_openslides_own_deepzoom(svs, reader):
    reference = np.asarray(
        DeepZoomGenerator(openslide.OpenSlide(svs), tile_size=200, overlap=0).get_tile(10, (1, 1))
    )
    with open_slide(svs, reader) as slide:
        np.testing.assert_array_equal(slide.read_region(200, 200, 0, 200, 200), reference)


@pytest.mark.parametrize("reader", EVERY)
def test_absent_tiles_are_white_in_every_reader(tmp_path, kit, reader):
    pixels = kit.texture()
    path = kit.write_sparse_tiff(tmp_path / "sparse.tif", pixels, {0, 7})
    expected = pixels.copy()
    expected[:128, :128] = 255
    expected[128:256, 128:256] = 255
    with open_slide(path, reader) as slide:
        assert slide.reader == reader  # the comparison with OpenSlide did not refuse it
        np.testing.assert_array_equal(slide.read_region(0, 0, 0, 700, 600), expected)


@pytest.mark.parametrize("reader", EVERY)
def test_one_bad_tile_costs_its_own_place_only(tmp_path, kit, svs, reader):
    path = tmp_path / "spoilt.svs"
    shutil.copy(svs, path)
    kit.spoil_tile(path, 8)  # column 2, row 1
    from wsi_ncmi.slides.openslide_reader import OpenSlideSlide
    from wsi_ncmi.slides.tiffslide_reader import TiffSlideSlide

    kind = {"openslide": OpenSlideSlide, "tiffslide": TiffSlideSlide}[reader]
    with open_slide(svs) as sound, kind(path) as slide:
        before = slide.read_region(0, 0, 0, 128, 128)
        for _ in range(2):
            with pytest.raises(SlideReadError, match="level 0, x 256, y 128"):
                slide.read_region(256, 128, 0, 128, 128)
            np.testing.assert_array_equal(slide.read_region(0, 0, 0, 128, 128), before)
            np.testing.assert_array_equal(
                slide.read_region(384, 128, 0, 128, 128), sound.read_region(384, 128, 0, 128, 128)
            )


def test_a_bad_tile_read_by_threads_fails_alone(tmp_path, kit, svs):
    path = tmp_path / "spoilt.svs"
    shutil.copy(svs, path)
    kit.spoil_tile(path, 8)
    boxes = [(x, y) for _ in range(6) for y in range(0, 512, 128) for x in range(0, 640, 128)]
    with open_slide(svs) as sound:
        expected = {box: sound.read_region(*box, 0, 128, 128) for box in set(boxes)}
    with open_slide(path) as slide, ThreadPoolExecutor(4) as pool:

        def read(box):
            try:
                return np.array_equal(slide.read_region(*box, 0, 128, 128), expected[box])
            except SlideReadError:
                return "failed"

        for box, outcome in zip(boxes, pool.map(read, boxes), strict=True):
            assert outcome == ("failed" if box == (256, 128) else True), box


def test_openslide_keeps_neither_label_nor_macro_properties(svs):
    assert openslide.OpenSlide(svs).properties["openslide.associated.label.width"] == "60"
    with open_slide(svs) as slide:
        assert not [key for key in slide.properties if "associated" in key]


def test_tiffslide_reads_remote_addresses(svs, kit):
    import fsspec

    fsspec.filesystem("memory").pipe("/bucket/remote.svs", svs.read_bytes())
    with open_slide("memory://bucket/remote.svs") as slide, open_slide(svs) as local:
        assert (slide.reader, slide.vendor, slide.path.name) == ("tiffslide", "aperio", "remote.svs")
        np.testing.assert_array_equal(
            slide.read_region(90, 50, 0, 300, 200), local.read_region(90, 50, 0, 300, 200)
        )
    with pytest.raises(
        SlideOpenError,
        match=r"none\.svs can't be opened from its address \(openslide: it reads local files only; tiffslide: ",
    ):
        open_slide("memory://bucket/none.svs")


@pytest.mark.parametrize("extension", ["png", "tif", "jpg"])
def test_flat_images_are_slides_of_one_level(tmp_path, kit, extension):
    pixels = kit.texture(90, 70)
    path = tmp_path / f"flat.{extension}"
    Image.fromarray(pixels).save(path)
    with open_slide(path) as slide, open_slide(path, "image") as plain:
        assert len(slide.levels) == 1
        assert plain.reader == "image"
        region = plain.read_region(-5, 60, 0, 50, 20)
        stored = np.asarray(Image.open(path))
        np.testing.assert_array_equal(region[:10, 5:], stored[60:70, :45])
        assert (region[10:] == 255).all()
        assert (region[:, :5] == 255).all()
        np.testing.assert_array_equal(slide.read_region(0, 0, 0, 90, 70), stored)


def test_a_flat_images_transparency_lies_over_white(tmp_path):
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:2] = (255, 0, 0, 255)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with open_slide(tmp_path / "a.png") as slide:
        region = slide.read_region(0, 0, 0, 4, 4)
    assert (region[:2] == (255, 0, 0)).all()
    assert (region[2:] == 255).all()


def test_a_truncated_flat_image_fails_when_it_is_read(tmp_path, kit):
    path = tmp_path / "cut.png"
    Image.fromarray(kit.texture(200, 200)).save(path)
    path.write_bytes(path.read_bytes()[:40000])
    with open_slide(path) as slide, pytest.raises(SlideReadError, match="truncated"):
        slide.read_region(0, 0, 0, 10, 10)


@pytest.mark.parametrize("what", ["zeros", "cut", "an early marker"])
def test_a_damaged_flat_jpeg_is_not_filled_in(tmp_path, kit, what):
    path = tmp_path / "flat.jpg"
    Image.fromarray(kit.texture(200, 200)).save(path, quality=90)
    content = bytearray(path.read_bytes())
    middle = len(content) * 2 // 3
    if what == "cut":
        del content[middle:]
    else:
        content[middle : middle + 900] = bytes(900) if what == "zeros" else b"\xff\xd9".ljust(900, b"\0")
    path.write_bytes(content)
    with open_slide(path) as slide, pytest.raises(SlideReadError, match=r"flat\.jpg can't be read"):
        slide.read_region(0, 0, 0, 10, 10)


def test_a_flat_image_above_the_bound_is_refused_from_its_header(tmp_path):
    path = tmp_path / "huge.png"
    Image.new("1", (20000, 20000)).save(path)
    with pytest.raises(SlideOpenError, match=f"more pixels than a flat image may have .{MAX_IMAGE_PX} px"):
        open_slide(path)


@pytest.mark.parametrize("tile", [None, (128, 128)])
@pytest.mark.parametrize(("dtype", "bits"), [(np.uint16, 16), (np.float32, 32)])
def test_pixels_that_are_not_8_bit_are_refused(tmp_path, dtype, bits, tile):
    """OpenSlide opens tiled 16-bit files and gives black pixels in their edge tiles."""
    path = tmp_path / "deep.tif"
    tifffile.imwrite(path, np.ones((300, 300), dtype), tile=tile)
    with pytest.raises(SlideOpenError, match=f"deep.tif has {bits} bits per channel, not 8"):
        open_slide(path)


@pytest.mark.parametrize("reader", EVERY)
@pytest.mark.parametrize("channels", [1, 4])
def test_grey_and_transparent_tiffs(tmp_path, kit, reader, channels):
    pixels = np.random.default_rng(0).integers(0, 256, (300, 300, 4), dtype=np.uint8)
    pixels[:, :, 3] = 255
    path = tmp_path / "kind.tif"
    more = (
        {"photometric": "rgb", "extrasamples": ["unassalpha"]}
        if channels == 4
        else {"photometric": "minisblack"}
    )
    tifffile.imwrite(path, pixels if channels == 4 else pixels[:, :, 0], tile=(128, 128), **more)
    with open_slide(path, reader) as slide:
        assert slide.reader == reader
        expected = pixels[:, :, :3] if channels == 4 else np.repeat(pixels[:, :, :1], 3, axis=2)
        np.testing.assert_array_equal(slide.read_region(0, 0, 0, 300, 300), expected)


def test_a_reader_with_other_pixels_is_replaced_by_openslide_and_says_so(svs, monkeypatch):
    from wsi_ncmi.slides.tiffslide_reader import TiffSlideSlide

    honest = TiffSlideSlide._read

    def garbled(self, *request):
        pixels = honest(self, *request)
        pixels[-1, -1, 0] ^= 8
        return pixels

    with open_slide(svs, "tiffslide") as slide:
        assert (slide.reader, slide.note, probe_against_openslide(slide)) == ("tiffslide", "", 0)
    monkeypatch.setattr(TiffSlideSlide, "_read", garbled)
    with TiffSlideSlide(svs) as slide:
        assert probe_against_openslide(slide) == 8
    with open_slide(svs, "tiffslide") as slide:
        assert slide.reader == "openslide"
        assert (
            slide.note
            == "Read by openslide because tiffslide gave pixels up to 8 grey levels away from OpenSlide's."
        )


def test_an_unknown_reader_is_an_input_error(svs):
    with pytest.raises(InputError, match=r"choose auto or one of openslide, tiffslide, .*image"):
        open_slide(svs, "cucim")
