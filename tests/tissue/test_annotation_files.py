"""Annotation files and the slides they belong to."""

from __future__ import annotations

import json
import logging
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.extraction.planning import _annotation_files
from wsi_ncmi.slides import SlideRecord
from wsi_ncmi.tissue import (
    TissueMask,
    apply_annotations,
    find_annotations,
    match_annotations,
    only_annotation,
    read_annotations,
)

SLIDES = {
    "a": "a.svs", "TCGA-1.2": "TCGA-1.2.svs", "x__twin": "twin.svs", "y__twin": "twin.svs", "b.svs": "b.svs",
    "b.tif": "b.tif", "Tumör": unicodedata.normalize("NFD", "Tumör") + ".tiff", "dicom": "",
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "slide"),
    [
        ("a.geojson", "a"),
        ("a.svs.geojson", "a"),
        ("a.SVS.GeoJSON", "a"),
        ("a.JSON", "a"),
        ("a.svs.json.gz", "a"),
        ("a.GEOJSON.GZ", "a"),
        ("a.Xml", "a"),
        ("a.zip", "a"),
        ("TCGA-1.2.geojson", "TCGA-1.2"),
        ("TCGA-1.2.svs.geojson", "TCGA-1.2"),
        ("x__twin.geojson", "x__twin"),
        ("x__twin.svs.geojson", "x__twin"),
        ("b.svs.geojson", "b.svs"),
        (unicodedata.normalize("NFD", "Tumör.geojson"), "Tumör"),
        ("Tumör.tiff.geojson", "Tumör"),
        ("dicom.dcm.geojson", "dicom"),
        # Which of two, or another file than the slide's.
        ("twin.svs.geojson", None),
        ("b.geojson", None),
        ("a.tif.geojson", None),
        ("A.geojson", None),
        ("zz.geojson", None),
        ("a.1.geojson", None),
    ],
)
def test_names_with_and_without_the_slide_s_extension_in_any_case(
    tmp_path: Path, name: str, slide: str
) -> None:
    (tmp_path / name).write_text("x")
    found, left = match_annotations(tmp_path, SLIDES)
    assert found == ({slide: [tmp_path / name]} if slide else {})
    assert left == ([] if slide else [tmp_path / name])
    if slide:
        assert find_annotations(tmp_path, slide, SLIDES[slide]) == tmp_path / name


def test_other_files_are_no_annotations_and_two_of_a_slide_are_refused(tmp_path: Path) -> None:
    for name in (".a.geojson", "a.txt", "Thumbs.db"):
        (tmp_path / name).write_text("x")
    (tmp_path / "a.geojson.d").mkdir()
    assert match_annotations(tmp_path, SLIDES) == ({}, [])
    for name in ("a.geojson", "a.svs.geojson"):
        (tmp_path / name).write_text("x")
    with pytest.raises(InputError, match=r"two annotation files, a\.geojson and a\.svs\.geojson; keep one"):
        only_annotation("a", match_annotations(tmp_path, SLIDES)[0]["a"])


def record(slide_id: str) -> SlideRecord:
    fields = dict.fromkeys(SlideRecord.__dataclass_fields__, "")
    return SlideRecord(**{**fields, "slide_id": slide_id, "path": f"folder/{slide_id}.svs"})  # type: ignore[arg-type]


def test_what_is_left_over_is_told_before_any_slide_is_opened(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records = [record("a"), record("s_01")]
    for name in ("a.svs.GeoJSON", "S-1.geojson", "zz.geojson"):
        (tmp_path / name).write_text("x")
    with caplog.at_level(logging.WARNING):
        assert _annotation_files(tmp_path, records) == {"a": [tmp_path / "a.svs.GeoJSON"]}
    assert "2 files in" in caplog.text
    assert "S-1.geojson, zz.geojson; 'S-1' and the slide 's_01' differ only in case" in caplog.text
    (tmp_path / "a.svs.GeoJSON").unlink()
    with pytest.raises(
        InputError, match=r"No file in .* the 2 slides, such as a\.geojson; 'S-1' and the slide"
    ):
        _annotation_files(tmp_path, records)


def square(start: int, end: int) -> dict[str, object]:
    ring = [[start, start], [end, start], [end, end], [start, end], [start, start]]
    return {"type": "Polygon", "coordinates": [ring]}


def test_a_feature_without_a_geometry_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    features = [{"type": "Feature", "geometry": g, "properties": p} for g, p in (
        (square(2, 8), None), (None, {}), (None, {"objectType": "annotation"}), (square(0, 4), {"object_type": "cell"}),
    )]  # fmt: skip
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    areas = read_annotations(path)
    assert len(areas) == 1
    assert areas.notes == (
        "2 features without a place are no areas and were left out",
        "1 cell objects are no areas and were left out",
    )
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features[1:2]}))
    with pytest.raises(InputError, match="it holds no area"):
        read_annotations(path)


def test_areas_outside_of_the_slide_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    path.write_text(
        json.dumps([{"type": "Feature", "geometry": square(*ends)} for ends in ((0, 40), (41, 60))])
    )
    mask = apply_annotations(TissueMask(np.ones((10, 10), bool), 4.0, 4.0, "drawn"), read_annotations(path))
    assert "1 area of the annotations outside of the slide" in mask.note
