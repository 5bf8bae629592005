"""Polygons to GeoJSON that QuPath opens, and back to the pixel."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import shapely

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.tissue import TissueMask, mask_polygons, read_geojson, write_geojson

SQUARE = {"type": "Polygon", "coordinates": [[[0, 0], [8, 0], [8, 8], [0, 8], [0, 0]]]}
BOW_TIE = {"type": "Polygon", "coordinates": [[[0, 0], [8, 8], [8, 0], [0, 8], [0, 0]]]}
PAIR = {
    "type": "MultiPolygon",
    "coordinates": [SQUARE["coordinates"], [[[20, 0], [22, 0], [22, 3], [20, 0]]]],
}


def dump(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_mask_comes_back_to_the_pixel(tmp_path: Path) -> None:
    pixels = np.random.default_rng(3).random((40, 50)) < 0.6
    polygons = mask_polygons(TissueMask(pixels, 32.017, 31.993, "drawn"))
    write_geojson(tmp_path / "t.geojson", polygons, "tissue")
    back = read_geojson(tmp_path / "t.geojson")
    assert {annotation.name for annotation in back} == {"tissue"}
    assert len(back) == len(polygons)
    assert all(a.polygon.equals_exact(b, 0.0) for a, b in zip(back, polygons, strict=True)), (
        "not the same coordinates"
    )


def test_the_file_has_the_shape_that_qupath_opens(tmp_path: Path) -> None:
    hole = shapely.Polygon([(0, 0), (9, 0), (9, 9), (0, 9)], [[(2, 2), (4, 2), (4, 4), (2, 4)]])
    write_geojson(tmp_path / "t.geojson", [hole], "tumor")
    content = json.loads((tmp_path / "t.geojson").read_text())
    assert content["type"] == "FeatureCollection"
    (feature,) = content["features"]
    assert feature["type"] == "Feature"
    assert feature["geometry"]["type"] == "Polygon"
    outer, inner = feature["geometry"]["coordinates"]
    assert outer[0] == outer[-1]
    assert len(inner) == 5
    assert feature["properties"]["objectType"] == "annotation"
    assert feature["properties"]["classification"]["name"] == "tumor"
    colour = feature["properties"]["classification"]["color"]
    assert len(colour) == 3
    assert all(isinstance(part, int) and 0 <= part <= 255 for part in colour)


def test_no_polygons_are_an_empty_collection(tmp_path: Path) -> None:
    write_geojson(tmp_path / "t.geojson", [], "tissue")
    assert read_geojson(tmp_path / "t.geojson") == []


FEATURE = {"type": "Feature", "geometry": SQUARE, "properties": {"classification": {"name": "Tumor"}}}


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (FEATURE, ["Tumor"]),
        ([FEATURE, FEATURE], ["Tumor", "Tumor"]),
        ({"type": "FeatureCollection", "features": [FEATURE]}, ["Tumor"]),
        (SQUARE, [""]),
        ({"type": "Feature", "geometry": PAIR, "properties": {"name": "a"}}, ["a", "a"]),
        ({"type": "Feature", "geometry": SQUARE, "properties": None}, [""]),
        ({"type": "GeometryCollection", "geometries": [PAIR, SQUARE]}, ["", "", ""]),
    ],
)
def test_every_usual_top_level_is_read(tmp_path: Path, content: object, names: list[str]) -> None:
    found = read_geojson(dump(tmp_path / "a.geojson", content))
    assert [annotation.name for annotation in found] == names
    assert found[0].polygon.area == 64.0


def test_outlines_that_cross_themselves_become_valid_parts(tmp_path: Path) -> None:
    found = [annotation.polygon for annotation in read_geojson(dump(tmp_path / "a.geojson", BOW_TIE))]
    assert [polygon.is_valid for polygon in found] == [True, True]
    assert sum(polygon.area for polygon in found) == pytest.approx(32.0)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{not json", "Expecting"),
        ("", "Expecting"),
        ("7", "no features"),
        ({"features": []}, "'type' is missing"),
        ({"type": "Feature", "properties": {}}, "'geometry' is missing"),
        ([3], "no object"),
        ({"type": "Point", "coordinates": [1, 2]}, "Point is no area"),
        ({"type": "LineString", "coordinates": [[1, 2], [3, 4]]}, "LineString is no area"),
        ({"type": "Polygon", "coordinates": []}, "no area"),
        ({"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}, ""),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [NaN, 1], [1, 1], [0, 0]]]}', "finite"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1e999, 1], [1, 1], [0, 0]]]}', "1e999 is too large"),
        ({"type": "Banana", "coordinates": [1]}, ""),
        ("[" * 100_000, ""),
    ],
)
def test_what_is_no_area_is_refused_in_one_sentence(tmp_path: Path, content: object, reason: str) -> None:
    path = dump(tmp_path / "broken.geojson", content)
    with pytest.raises(InputError) as caught:
        read_geojson(path)
    text = str(caught.value)
    assert text.startswith("broken.geojson can't be read as GeoJSON polygons (")
    assert reason in text
    assert "\n" not in text
    assert str(tmp_path) not in text


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00{"])
def test_missing_and_binary_files_are_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.geojson"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"^a\.geojson can't be read") as caught:
        read_geojson(path)
    assert str(tmp_path) not in str(caught.value)
