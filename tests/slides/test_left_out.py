"""What a search leaves out, and says: results of jobs and tools, pictures of labels, objects without an image."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.slides.test_discovery import _dicom, _touch
from wsi_ncmi.core.errors import InputError, SlideOpenError
from wsi_ncmi.core.files import OUTPUT_MARKER, job_folder
from wsi_ncmi.slides import open_slide
from wsi_ncmi.slides.discovery import find_slides
from wsi_ncmi.slides.identity import UNREAD_FORMATS
from wsi_ncmi.slides.registry import readers_of


def search(root, **more):
    said: list[str] = []
    return [slide.relative for slide in find_slides(root, remark=said.append, **more)], said


def test_a_folder_that_a_job_made_is_searched_only_when_named(tmp_path):
    _touch(tmp_path, "a.svs")
    for folder in ("results", "b/deep/again"):
        job_folder(tmp_path / folder)
        _touch(tmp_path, f"{folder}/thumbnails/a.jpg", f"{folder}/c.tif")
    found, said = search(tmp_path)
    assert found == ["a.svs"]
    assert said == [
        "2 folders of results left out of the search (b/deep/again, results); "
        "name one as the folder of slides to search it."
    ]
    assert search(tmp_path / "results") == (["c.tif", "thumbnails/a.jpg"], [])


def test_the_folder_of_slides_as_output_folder_stays_one_of_slides(tmp_path):
    _touch(tmp_path, "a.svs", "sub/b.svs")
    job_folder(tmp_path)
    _touch(tmp_path, "ledger.jsonl", "thumbnails/a.jpg", "heatmaps/a_b.png")
    assert not (tmp_path / OUTPUT_MARKER).exists()
    assert search(tmp_path)[0] == ["a.svs", "sub/b.svs"]


@pytest.mark.parametrize(
    ("sign", "pictures"),
    [
        ("ledger.csv", ("thumbnails/a.jpg", "thumbnails@1um/a.jpg", "heatmaps/a.png")),
        ("process_list_autogen.csv", ("masks/a.jpg", "stitches/a.jpg", "patches/a.png")),
        ("x.txt", ("heatmap_production_results/EXP/a/a_blockmap.tiff", "heatmap_raw_results/a/a.png")),
        ("_config_segmentation.json", ("thumbnails/a.jpg", "contours/a.jpg")),
        ("contours_geojson/a.geojson", ("contours/a.jpg", "20x_256px_0px_overlap/visualization/a.jpg")),
        ("project.qpproj", ("data/1/thumbnail.jpg", "classifiers/a.png")),
    ],
)
def test_pictures_of_other_tools_are_no_slides_and_slides_beside_them_are(tmp_path, sign, pictures):
    _touch(tmp_path, "batch/s.svs", f"batch/{sign}", *(f"batch/{name}" for name in pictures), "data/t.svs")
    found, said = search(tmp_path)
    assert found == ["batch/s.svs", "data/t.svs"]
    assert "results left out" in said[0]
    named = pictures[0].split("/")[0]
    assert len(search(tmp_path / "batch" / named)[0]) >= 1


def picture(path, size=(600, 400), **more):
    Image.new("RGB", size, (250, 250, 250)).save(path, **more)


@pytest.mark.parametrize(
    "name",
    [
        "S1_label.tif", "S1_macro.tiff", "S1-Label.TIF", "S1.label.tif", "S1 label image.tif", "label_S1.tif",
        "macro S1.tiff", "S1_thumbnail.tif", "S1_overview_1.tif", "S1 (macro).tif", "S1_label.png", "S1.jpg",
        "S1_scan2.tif",
    ],
)  # fmt: skip
def test_label_and_macro_pictures_are_left_out_unless_listed(tmp_path, name):
    _touch(tmp_path, "S1.svs")
    picture(tmp_path / name.lower().replace(" ", "_"), format="TIFF" if "tif" in name.lower() else "PNG")
    (tmp_path / name.lower().replace(" ", "_")).rename(tmp_path / name)
    found, said = search(tmp_path)
    assert found == ["S1.svs"]
    assert said == [
        f"1 picture of a slide's label, glass or overview left out ({name}); "
        "list their ids in --list to read them."
    ]
    stem = name.rsplit(".", 1)[0]
    assert sorted(search(tmp_path, listed={stem, "S1"})[0]) == sorted(["S1.svs", name])
    assert search(tmp_path / name)[0] == [name]


def test_slides_that_are_called_like_pictures_are_slides(tmp_path, kit):
    """Words in a name without a slide that it is of, large images, tiles, and images with a slide's resolution."""
    _touch(tmp_path, "S1.svs", "macro_metastasis.svs", "S1_label.svs")
    picture(tmp_path / "other_label.tif")
    picture(tmp_path / "S2.tif")
    picture(tmp_path / "S2_b.tif")  # S2 is no scanner's file: a cohort of flat images is called so
    tifffile.imwrite(tmp_path / "S1_macro.tif", np.zeros((16, 6000), np.uint8))
    kit.write_tiff(tmp_path / "S1_roi.tif")
    tifffile.imwrite(
        tmp_path / "S1_region.tif", np.zeros((90, 80, 3), np.uint8), resolution=(20000, 20000),
        resolutionunit="CENTIMETER",
    )  # fmt: skip
    found, said = search(tmp_path)
    assert said == []
    assert len(found) == 9


def with_class(uid: str, series: str = "1.2", image_type: str = "ORIGINAL") -> bytes:
    head = b"\x08\0\x16\0UI" + len(uid).to_bytes(2, "little") + uid.encode()
    data = _dicom(series).replace(b"\x08\0\x08\0CS\x08\0ORIGINAL", b"\x08\0\x08\0CS" + len(image_type).to_bytes(2, "little") + image_type.encode() + head)  # fmt: skip
    assert head in data
    return data


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        ("91.1", "Microscopy Bulk Simple Annotations"), ("88.33", "Comprehensive SR"), ("66.4", "Segmentation"),
        ("30", "Parametric Map"), ("11.1", "Grayscale Softcopy Presentation State"), ("66", "Raw Data"),
        ("104.1", "Encapsulated PDF"), ("2", "CT Image"), ("77.1.2", "VL Microscopic Image"),
    ],
)  # fmt: skip
def test_dicom_objects_that_are_no_slides_are_no_failures(tmp_path, part, kind):
    (tmp_path / "x.dcm").write_bytes(with_class(f"1.2.840.10008.5.1.4.1.1.{part}", series="1.9"))
    (tmp_path / "wsi.dcm").write_bytes(with_class("1.2.840.10008.5.1.4.1.1.77.1.6"))
    found, said = search(tmp_path)
    assert found == ["wsi.dcm"]
    assert said == [f"1 DICOM object that is no whole-slide image left out: 1 × {kind}."]
    with pytest.raises(SlideOpenError) as caught:
        open_slide(tmp_path / "x.dcm")
    assert str(caught.value) == (
        f"x.dcm is DICOM, but no whole-slide image ({kind}); give the image that it is about."
    )


def test_further_dicom_objects_are_counted_in_one_line(tmp_path):
    for number, part in enumerate(("88.33", "91.1", "88.33", "77.1.6")):
        (tmp_path / f"IM{number}").write_bytes(with_class(f"1.2.840.10008.5.1.4.1.1.{part}", f"1.{number}"))
    found, said = search(tmp_path)
    assert found == ["IM3"]
    assert said == [
        "3 DICOM objects that are no whole-slide images left out: 2 × Comprehensive SR, "
        "1 × Microscopy Bulk Simple Annotations."
    ]


def test_a_dicom_series_of_the_label_alone_is_left_out(tmp_path):
    slide = "1.2.840.10008.5.1.4.1.1.77.1.6"
    (tmp_path / "label.dcm").write_bytes(with_class(slide, "1.3", "ORIGINAL\\PRIMARY\\LABEL\\NONE"))
    (tmp_path / "a.dcm").write_bytes(with_class(slide, "1.4", "ORIGINAL\\PRIMARY\\VOLUME\\NONE"))
    (tmp_path / "b.dcm").write_bytes(with_class(slide, "1.4", "ORIGINAL\\PRIMARY\\LABEL\\NONE"))
    found, said = search(tmp_path)
    assert len(found) == 1
    assert "label.dcm" in said[0]


def test_dicom_files_without_extension_are_found_by_their_content(tmp_path):
    for number, name in enumerate(("IM000001", "1.2.840.113619.2", "DICOMDIR", "README")):
        (tmp_path / name).write_bytes(with_class("1.2.840.10008.5.1.4.1.1.77.1.6", f"1.{number}"))
    (tmp_path / "README").write_text("no slide")
    (tmp_path / "DICOMDIR").write_bytes(with_class("1.2.840.10008.1.3.10"))
    assert search(tmp_path)[0] == ["1.2.840.113619.2", "IM000001"]
    assert find_slides(tmp_path / "IM000001")[0].problem == ""


@pytest.mark.parametrize(
    "name",
    [
        *(f"a{extension}" for extension in UNREAD_FORMATS if not readers_of(f"a{extension}")),
        "a.svs.gz",
        "a.tif.zip",
    ],
)
def test_slides_that_no_reader_opens_are_named(tmp_path, name):
    _touch(tmp_path, name)
    (slide,) = find_slides(tmp_path)
    assert slide.relative == name
    assert slide.problem.startswith(f"{name} is a slide")
    assert find_slides(tmp_path / name)[0].problem == slide.problem


def test_a_zarr_folder_is_one_slide_that_no_reader_opens_and_is_not_searched(tmp_path):
    _touch(tmp_path, "a.ome.zarr/0/0/0.png", "a.ome.zarr/.zattrs", "b.zarr/x.tif")
    slides = find_slides(tmp_path)
    assert [slide.relative for slide in slides] == ["a.ome.zarr", "b.zarr"]
    assert all("OME-Zarr" in slide.problem for slide in slides)


def test_an_unread_slide_beside_its_converted_copy_is_left_out(tmp_path):
    _touch(tmp_path, "a.isyntax", "a.ome.tif", "b.kfb", "b.svs", "c.svs.gz", "c.svs")
    found, said = search(tmp_path)
    assert found == ["a.ome.tif", "b.svs", "c.svs"]
    assert "a.isyntax, b.kfb, c.svs.gz" in said[0]


def test_folders_named_like_slides_are_searched(tmp_path):
    _touch(tmp_path, "x.svs/y.svs", "z.dcm/notes.txt")
    assert search(tmp_path) == (["x.svs/y.svs"], [])
    with pytest.raises(InputError, match="no file or folder"):
        search(tmp_path / "none.svs")
