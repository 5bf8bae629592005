"""Label and macro images (patient data) are never read, whatever is done with a slide."""

from __future__ import annotations

import openslide
import pytest
import tiffslide
from openslide import lowlevel

from wsi_ncmi.slides import open_slide, probe_against_openslide, read_overview, take_inventory, thumbnail


@pytest.fixture
def forbidden(monkeypatch):
    """Every door to associated images, in both libraries, raises. AssertionErrors in a reader would become
    SlideErrors, so each touch is also noted."""
    touched = []

    def door(name):
        def refuse(*arguments, **more):
            touched.append(name)
            raise AssertionError(f"{name} was touched")

        return refuse

    for name in (
        "get_associated_image_names",
        "get_associated_image_dimensions",
        "read_associated_image",
        "read_associated_image_icc_profile",
    ):
        monkeypatch.setattr(lowlevel, name, door(name))
    for kind in (openslide.OpenSlide, tiffslide.TiffSlide):
        monkeypatch.setattr(kind, "associated_images", property(door(f"{kind.__name__}.associated_images")))
        monkeypatch.setattr(kind, "get_thumbnail", door(f"{kind.__name__}.get_thumbnail"))
    return touched


def test_the_doors_are_really_locked(forbidden, svs):
    with pytest.raises(AssertionError):
        _ = openslide.OpenSlide(svs).associated_images
    with pytest.raises(AssertionError):
        lowlevel.read_associated_image(None, "label")
    assert forbidden == ["OpenSlide.associated_images", "read_associated_image"]


@pytest.mark.parametrize("reader", ["auto", "openslide", "tiffslide"])
def test_nothing_touches_associated_images(forbidden, svs, reader):
    with open_slide(svs, reader) as slide:
        assert slide.reader == ("openslide" if reader == "auto" else reader)
        for level in range(len(slide.levels)):
            slide.read_region(0, 0, level, 64, 64)
        thumbnail(slide, 64)
        read_overview(slide, 30, 20)
        assert probe_against_openslide(slide) == 0
    (record,) = take_inventory(svs)
    assert record.problem == ""
    assert forbidden == []


def test_no_level_has_the_pixels_of_the_label(svs):
    # The label and macro images of the test slide are flat 77-grey pictures of 60 × 40 px.
    for reader in ("openslide", "tiffslide"):
        with open_slide(svs, reader) as slide:
            assert all((level.width_px, level.height_px) != (60, 40) for level in slide.levels)
