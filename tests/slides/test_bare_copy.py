"""Bare copies: the same pixels by OpenSlide, and nothing of a person in any byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import tifffile

from tests.workflows.conftest import tissue
from wsi_ncmi.core.errors import SlideError
from wsi_ncmi.slides.bare_copy import copy_bare

ABOUT = (
    "|AppMag = 20|Filename = Doe_John|Title = Doe|User = Smith|Date = 01/02/23|MPP = 0.5000|Barcode = 4711"
)


def write_named(path: Path, compression: str = "jpeg", name: str = "Aperio Image Library v12.0.1") -> Path:
    """An Aperio slide with a patient's name in its descriptions, tags and label."""
    pixels = tissue(3)
    common: dict[str, Any] = {"compression": compression, "photometric": "rgb", "metadata": None}
    if compression == "jpeg":
        common["compressionargs"] = {"outcolorspace": "RGB"}
    with tifffile.TiffWriter(path) as writer:

        def page(image: np.ndarray, what: str, **how: Any) -> None:
            writer.write(
                image, description=f"{name}\r\n{what}", datetime="2023:01:02 03:04:05", software="Doe",
                extratags=[(315, "s", 0, "Doe", True)], **{**common, **how},
            )  # fmt: skip

        page(pixels, f"640x512 [0,0 640x512] (128x128) JPEG/RGB Q=80{ABOUT}", tile=(128, 128))
        page(pixels[::8, ::8], f"640x512 -> 80x64 - {ABOUT}")
        page(pixels[::4, ::4], f"640x512 -> 160x128 [0,0] {ABOUT}", tile=(128, 128), subfiletype=1)
        page(pixels[:90, :90], "label 90x90", compression="lzw", compressionargs=None, subfiletype=1)
        page(pixels[:64, :160], "macro 160x64", subfiletype=9)
    return path


@pytest.mark.parametrize("compression", ["jpeg", "lzw"])
def test_pixels_are_the_slides_and_names_are_gone(tmp_path: Path, compression: str) -> None:
    slide, copy = write_named(tmp_path / "Doe.svs", compression), tmp_path / "copy.svs"
    assert b"Doe" in slide.read_bytes()
    copy_bare(slide, copy)
    content = copy.read_bytes()
    for words in (b"Doe", b"Smith", b"01/02/23", b"2023:01:02", b"4711", b"label", b"macro", b"Barcode"):
        assert words not in content, words
    with openslide.OpenSlide(slide) as before, openslide.OpenSlide(copy) as after:
        assert set(before.associated_images) == {"label", "macro", "thumbnail"}
        assert not after.associated_images
        assert after.level_dimensions == before.level_dimensions == ((640, 512), (160, 128))
        for key in ("openslide.mpp-x", "openslide.objective-power", "openslide.vendor"):
            assert after.properties[key] == before.properties[key]
        for level, size in enumerate(before.level_dimensions):
            read = [np.asarray(each.read_region((0, 0), level, size)) for each in (before, after)]
            np.testing.assert_array_equal(*read)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["Doe.svs", "copy.svs"]


def test_a_number_that_holds_words_is_left_out(tmp_path: Path) -> None:
    copy_bare(write_named(tmp_path / "a.svs", name="Aperio Image Library v1.0 Doe"), tmp_path / "copy.svs")
    assert b"Doe" not in (tmp_path / "copy.svs").read_bytes()
    with tifffile.TiffFile(tmp_path / "copy.svs") as copy:
        assert copy.pages[0].description.startswith("Aperio Image Library v1.0\r\n")


@pytest.mark.real_data
def test_a_real_slide(tmp_path: Path, real_data: Path) -> None:
    slide = real_data / "slides" / "CMU-1-Small-Region.svs"
    copy_bare(slide, tmp_path / "copy.svs")
    with openslide.OpenSlide(slide) as before, openslide.OpenSlide(tmp_path / "copy.svs") as after:
        assert before.associated_images
        assert not after.associated_images
        read = [np.asarray(each.read_region((0, 0), 0, before.dimensions)) for each in (before, after)]
        np.testing.assert_array_equal(*read)
    assert b"ScanScope" not in (tmp_path / "copy.svs").read_bytes()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-60_000])


def plain(path: Path) -> None:
    tifffile.imwrite(
        path, tissue(1), tile=(128, 128), description="Philips <label>Doe</label>", metadata=None
    )


def striped(path: Path) -> None:
    tifffile.imwrite(path, tissue(1), metadata=None)


def text(path: Path) -> None:
    path.write_text("no slide")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (plain, "only Aperio slides and tiled TIFF"),
        (striped, "only Aperio slides and tiled TIFF"),
        (text, "can't be copied tile by tile"),
        (lambda path: cut(write_named(path)), "."),
    ],
)
def test_what_can_not_be_copied_bare_is_one_sentence(tmp_path: Path, make: Any, words: str) -> None:
    slide = tmp_path / "a.tif"
    make(slide)
    with pytest.raises(SlideError, match=words) as caught:
        copy_bare(slide, tmp_path / "copy.tif")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]


def test_a_tiled_tiff_without_description(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", tissue(1), tile=(128, 128), compression="zlib", metadata=None)
    copy_bare(tmp_path / "a.tif", tmp_path / "copy.tif")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "copy.tif"), tissue(1))
