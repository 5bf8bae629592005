"""Files that hold more than the one image that is read."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from wsi_ncmi.slides import open_slide, take_inventory

COLOUR = {"photometric": "rgb", "tile": (128, 128), "compression": "deflate"}
GREY = COLOUR | {"photometric": "minisblack"}


def write(path, *images, **options):
    with tifffile.TiffWriter(path, bigtiff=True, ome=path.name.endswith(".ome.tif")) as writer:
        for pixels, metadata in images:
            writer.write(
                pixels, metadata=metadata, resolution=(20000, 20000), resolutionunit="CENTIMETER", **options
            )
    return path


@pytest.mark.parametrize(
    ("name", "axes", "shape", "options", "words"),
    [
        ("g.tif", "", (300, 200), GREY, "The image is grey"),
        ("one.ome.tif", "YXS", (300, 200, 3), COLOUR, ""),
    ],
)  # fmt: skip
def test_what_is_not_read_is_said(tmp_path, name, axes, shape, options, words):
    path = write(
        tmp_path / name, (np.full(shape, 200, np.uint8), {"axes": axes} if axes else None), **options
    )
    with open_slide(path) as slide:
        assert words in slide.note
        assert bool(words) == bool(slide.note)
    (record,) = take_inventory(tmp_path)
    assert words in record.remark


def test_scenes_are_counted_without_label_and_macro(tmp_path):
    a, b = np.full((300, 200, 3), 200, np.uint8), np.full((500, 400, 3), 150, np.uint8)
    names = ("specimen", "second", "label image", "Macro")
    images = [
        (pixels, {"axes": "YXS", "Name": name}) for pixels, name in zip((a, b, a, a), names, strict=True)
    ]
    with open_slide(write(tmp_path / "s.ome.tif", *images, **COLOUR)) as slide:
        assert (
            slide.note == "The file holds 2 scenes; the first one, 200 × 300 px, is read. Not read: second."
        )
    with open_slide(write(tmp_path / "l.ome.tif", images[0], images[2], **COLOUR)) as slide:
        assert slide.note == ""


def test_pages_of_one_size_without_a_description(tmp_path):
    plane = (np.full((300, 200, 3), 200, np.uint8), None)
    with open_slide(write(tmp_path / "p.tif", plane, plane, plane, **COLOUR)) as slide:
        assert "3 images of one size (focal planes, channels or scenes)" in slide.note
