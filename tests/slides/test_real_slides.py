"""The real slide and the real broken files."""

from __future__ import annotations

import hashlib

import numpy as np
import openslide
import pytest
from PIL import Image

from wsi_ncmi.core.errors import SlideError, SlideOpenError
from wsi_ncmi.slides import Mpp, open_slide, probe_against_openslide, resolve_mpp, take_inventory, thumbnail

pytestmark = pytest.mark.real_data
NAME = "CMU-1-Small-Region.svs"


def test_every_pixel_of_the_real_slide_equals_openslide(real_data):
    path = real_data / "slides" / NAME
    reference = np.asarray(openslide.OpenSlide(path).read_region((0, 0), 0, (2220, 2967)))
    assert (reference[:, :, 3] == 255).all()
    for reader in ("openslide", "tiffslide"):
        with open_slide(path, reader) as slide:
            assert (slide.reader, slide.vendor, slide.width_px, slide.height_px) == (
                reader,
                "aperio",
                2220,
                2967,
            )
            assert resolve_mpp(slide) == Mpp(0.499, 0.499, "vendor")
            np.testing.assert_array_equal(slide.read_region(0, 0, 0, 2220, 2967), reference[:, :, :3])
            np.testing.assert_array_equal(
                slide.read_region(1001, 777, 0, 300, 200), reference[777:977, 1001:1301, :3]
            )
            assert probe_against_openslide(slide) == 0


def test_the_thumbnail_is_the_slide_in_small_and_not_the_macro_image(real_data):
    with open_slide(real_data / "slides" / NAME) as slide:
        picture = thumbnail(slide, 989)
        whole = slide.read_region(0, 0, 0, 2220, 2967).astype(np.float64)
    assert picture.shape == (989, 740, 3)  # a factor of exactly 3
    mean = whole.reshape(989, 3, 740, 3, 3).mean(axis=(1, 3))
    assert np.abs(picture - mean).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("name", ["broken.svs", "small_dicom.dcm"])
def test_files_that_are_no_slides_get_one_clear_sentence(real_data, name):
    with pytest.raises(SlideOpenError) as caught:
        open_slide(real_data / "slides" / name)
    text = str(caught.value)
    assert text.startswith(f"{name} can't be opened as a slide (openslide: ")
    assert f"; {'dicom' if name.endswith('.dcm') else 'tiffslide'}: " in text
    assert ("; image: " in text) == name.endswith(".svs")
    assert text.count("\n") == 0
    assert str(real_data) not in text


def test_inventory_of_the_real_folder(real_data):
    found = take_inventory(real_data / "slides")
    assert {record.path for record in found if record.problem} == {"broken.svs", "small_dicom.dcm"}
    records = {record.slide_id: record for record in found}
    slide = records["CMU-1-Small-Region"]
    assert (slide.width_px, slide.height_px, slide.n_levels, slide.mpp_x, slide.size_bytes) == (
        2220,
        2967,
        1,
        0.499,
        1938955,
    )
    # Stored in feature files: it must not change with a library's version.
    assert slide.fingerprint == "68b19074966fda935cd10db832f1759a"


def test_a_real_slide_cut_at_random_places_is_never_white(real_data, tmp_path):
    whole = (real_data / "slides" / NAME).read_bytes()
    digest = hashlib.sha256(
        open_slide(real_data / "slides" / NAME).read_region(0, 0, 0, 2220, 2967).tobytes()
    ).digest()
    path = tmp_path / NAME
    opened = 0
    for length in np.random.default_rng(0).integers(1, len(whole), 50):
        path.write_bytes(whole[:length])
        try:
            slide = open_slide(path)
        except SlideOpenError:
            continue
        with slide:
            opened += 1
            assert hashlib.sha256(slide.read_region(0, 0, 0, 2220, 2967).tobytes()).digest() == digest
    assert opened < 50


REFUSED = {
    "himl_mock0_wsi.tiff": "32 bits per channel",
    "multi-channel-z-series.ome.tif": "3 × int8 a pixel, not 8-bit RGB",
    "openslide_unopenable.tiff": "no decoder is here for its compression 52479",
    "openslide_unreadable.svs": "can't be read at level 0",
}


def test_every_real_tiff_is_read_to_the_pixel_or_refused_in_a_sentence(real_data):
    files = sorted(
        path for path in (real_data / "tiff").iterdir() if "tif" in path.name or "svs" in path.name
    )
    assert len(files) == 9
    for path in files:
        if path.name in REFUSED:
            with pytest.raises(SlideError) as caught, open_slide(path) as slide:
                slide.read_region(0, 0, 0, *slide.dimensions)
            assert REFUSED[path.name] in str(caught.value)
            assert "\n" not in str(caught.value)
            continue
        with open_slide(path) as slide, Image.open(path) as expected:
            pixels = slide.read_region(0, 0, 0, *slide.dimensions)
            np.testing.assert_array_equal(pixels, np.asarray(expected.convert("RGB")), err_msg=path.name)
