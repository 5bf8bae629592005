"""Slides whose scanned area does not begin at 0, 0: QuPath counts from its corner, and so do annotations and GeoJSON."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely
import tifffile

from tests.extraction.conftest import GRID
from wsi_ncmi.encoders import Encoder
from wsi_ncmi.extraction import ExtractConfig
from wsi_ncmi.extraction.pipeline.pipeline import extract_slide
from wsi_ncmi.extraction.planning import make_tasks
from wsi_ncmi.features import open_features_file
from wsi_ncmi.prediction.config import ViewConfig
from wsi_ncmi.reporting.heatmaps import write_tiles_geojson
from wsi_ncmi.reporting.heatmaps.values import TileLayer, TileValues
from wsi_ncmi.slides import open_slide, read_slides_csv, take_inventory, write_slides_csv
from wsi_ncmi.tissue import read_annotations, read_geojson, write_annotations
from wsi_ncmi.tissue.geojson import parse_geojson
from wsi_ncmi.workflows.view import open_view

X, Y, SIDE = 1024, 512, 1024
BOUNDS = (X, Y, SIDE, SIDE)
TISSUE = (256, 192, 640, 576)  # in the scanned area
_NM = 500

_IMAGE = """<image name="{name}" uuid="{name}"><creationDate>2020-01-01T00:00:00Z</creationDate>
<device model="Leica SCN400;Leica SCN" version="1.4"/><pixels sizeX="{w}" sizeY="{h}">
<dimension sizeX="{w}" sizeY="{h}" r="0" ifd="{ifd}"/></pixels>
<view sizeX="{nw}" sizeY="{nh}" offsetX="{x}" offsetY="{y}" spacingZ="0"/><scanSettings><objectiveSettings>
<objective>{power}</objective></objectiveSettings><illuminationSettings><numericalAperture>0.4</numericalAperture>
<illuminationSource>brightfield</illuminationSource></illuminationSettings></scanSettings></image>"""


def write_scn(path: Path, corner: tuple[int, int] = (X, Y)) -> Path:
    """A Leica slide of 0.5 µm per pixel, 4,000 × 3,000 px, of which one region was scanned."""
    pixels = np.full((SIDE, SIDE, 3), 243, np.uint8)
    left, top, right, bottom = TISSUE
    noise = np.random.default_rng(0).normal(0, 18, (bottom - top, right - left, 3))
    pixels[top:bottom, left:right] = np.clip(np.array([190, 110, 165]) + noise, 0, 255).astype(np.uint8)
    wide, high = 4000 * _NM, 3000 * _NM
    text = f"""<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">
<collection name="c" uuid="c" sizeX="{wide}" sizeY="{high}">"""
    text += _IMAGE.format(name="macro", w=400, h=300, ifd=0, nw=wide, nh=high, x=0, y=0, power=0.6)
    text += _IMAGE.format(
        name="region", w=SIDE, h=SIDE, ifd=1, nw=SIDE * _NM, nh=SIDE * _NM, x=corner[0] * _NM,
        y=corner[1] * _NM, power=20,
    )  # fmt: skip
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for page in (np.full((300, 400, 3), 230, np.uint8), pixels):
            file.write(
                page, tile=(256, 256), photometric="rgb", compression="jpeg", metadata=None,
                resolution=(20_000, 20_000), resolutionunit="CENTIMETER",
                description=text + "</collection></scn>" if page is not pixels else None,
            )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def scn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scn(tmp_path_factory.mktemp("scn") / "s.scn")


def qupath(name: str, *boxes: tuple[int, int, int, int]) -> dict[str, object]:
    """An export of QuPath, version 0.5."""
    return {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature", "id": "0a1b", "geometry": shapely.geometry.mapping(shapely.box(*box)),
                "properties": {"objectType": "annotation", "classification": {"name": name, "color": [0, 0, 0]}},
            }
            for box in boxes
        ],
    }  # fmt: skip


def test_the_scanned_area_is_known_to_slide_and_inventory(scn: Path, tmp_path: Path) -> None:
    with open_slide(scn) as slide:
        assert (slide.bounds, slide.origin) == (BOUNDS, (X, Y))
    (record,) = take_inventory(scn.parent)
    assert record.scanned == BOUNDS
    write_slides_csv([record], tmp_path / "slides.csv")
    assert read_slides_csv(tmp_path / "slides.csv") == (record,)
    text = (tmp_path / "slides.csv").read_text().replace(",bounds", "").replace(f",{record.bounds}", "")
    (tmp_path / "slides.csv").write_text(text)  # as 0.1.0 wrote it
    assert read_slides_csv(tmp_path / "slides.csv") == (replace(record, bounds=""),)


def test_a_slide_scanned_from_its_corner_has_nothing_to_shift(tmp_path: Path) -> None:
    with open_slide(write_scn(tmp_path / "s.scn", (0, 0))) as slide:
        assert (slide.bounds, slide.origin) == ((0, 0, SIDE, SIDE), (0, 0))
    (record,) = take_inventory(tmp_path)
    assert record.bounds == ""


BOX = (300, 300, 400, 500)
PLACED: dict[str, tuple[object, tuple[int, int, int, int], str]] = {
    "drawn in QuPath": (qupath("ROI", BOX), (X + 300, Y + 300, X + 400, Y + 500), "as QuPath does"),
    "list of QuPath": (qupath("ROI", BOX)["features"], (X + 300, Y + 300, X + 400, Y + 500), "as QuPath does"),
    "a little beyond the edge": (qupath("ROI", (-8, -5, 900, 1030)), (X - 8, Y - 5, X + 900, Y + 1030), "as QuPath"),
    "of the whole slide": (qupath("ROI", (X + 300, Y + 300, X + 800, Y + 900)), (X + 300, Y + 300, X + 800, Y + 900), "own corner"),
    "ours": ({**qupath("ROI", BOX), "wsi_ncmi": {"origin_level0": [7, 9]}}, (307, 309, 407, 509), ""),
}  # fmt: skip


@pytest.mark.parametrize("kind", PLACED)
def test_coordinates_are_taken_from_where_they_were_counted(kind: str) -> None:
    content, expected, note = PLACED[kind]
    found = parse_geojson(json.dumps(content), "a.geojson", BOUNDS)
    assert [area.polygon.bounds for area in found] == [expected]
    assert note in "; ".join(found.notes)
    if kind != "ours":
        for without in (None, (0, 0, SIDE, SIDE)):
            (plain,) = parse_geojson(json.dumps(content), "a.geojson", without)
            assert plain.polygon.bounds != expected or kind == "of the whole slide"


def test_asap_counts_from_the_slides_own_corner(tmp_path: Path) -> None:
    points = "".join(
        f'<Coordinate Order="{i}" X="{x}" Y="{y}"/>' for i, (x, y) in enumerate([(1, 2), (50, 2), (50, 60)])
    )
    (tmp_path / "a.xml").write_text(
        f'<ASAP_Annotations><Annotations><Annotation Type="Polygon" PartOfGroup="ROI"><Coordinates>{points}'
        "</Coordinates></Annotation></Annotations></ASAP_Annotations>"
    )
    assert read_annotations(tmp_path / "a.xml", BOUNDS)[0].polygon.bounds == (1, 2, 50, 60)


def test_what_is_written_is_counted_as_in_qupath_and_comes_back(tmp_path: Path) -> None:
    hole = shapely.box(X + 10, Y + 20, X + 90, Y + 80) - shapely.box(X + 30, Y + 30, X + 40, Y + 40)
    path = tmp_path / "a.geojson"
    write_annotations(path, {"tissue": [hole]}, (X, Y))
    content = json.loads(path.read_text())
    assert shapely.geometry.shape(content["features"][0]["geometry"]).bounds == (10, 20, 90, 80)
    assert content["wsi_ncmi"] == {"origin_level0": [X, Y]}
    for bounds in (BOUNDS, None):
        assert read_geojson(path, bounds)[0].polygon.equals(hole)
    write_annotations(path, {"tissue": [hole]})
    assert set(json.loads(path.read_text())) == {"type", "features"}


def test_tiles_with_values_are_counted_alike(tmp_path: Path) -> None:
    layers = (TileLayer("attention", np.ones(1, np.float32)),)
    tiles = TileValues("s", np.array([[X + 64, Y + 128]]), (64.0, 64.0), (4000, 3000), layers)
    write_tiles_geojson(tmp_path / "a.geojson", tiles, coloured_by="attention", origin=(X, Y))
    content = json.loads((tmp_path / "a.geojson").read_text())
    assert content["features"][0]["geometry"]["coordinates"][0][0] == [64, 128]
    assert content["wsi_ncmi"] == {"origin_level0": [X, Y]}


@pytest.fixture
def config(scn: Path, tmp_path: Path) -> ExtractConfig:
    (tmp_path / "ann").mkdir()
    (tmp_path / "ann" / "s.geojson").write_text(json.dumps(qupath("ROI", (256, 192, 448, 576))))
    return ExtractConfig(slides=scn.parent, out=tmp_path / "out", grid=GRID, annotations=tmp_path / "ann")


def test_annotations_of_qupath_choose_the_tiles_that_were_meant(
    config: ExtractConfig, encoder: Encoder
) -> None:
    (task,) = make_tasks(config, take_inventory(config.slides), None)
    row = extract_slide(task, encoder)
    assert row.status == "done"
    assert f"corner at {X}, {Y}, as QuPath does" in row.reason
    coords = open_features_file(task.feature_path("descriptor")).coords
    assert len(coords) == 18  # the left half of the tissue
    assert coords.min(axis=0).tolist() == [X + 256, Y + 192]
    assert coords.max(axis=0).tolist() == [X + 384, Y + 512]
    (outline,) = json.loads(task.tissue_path.read_text())["features"]
    left, top, right, bottom = shapely.geometry.shape(outline["geometry"]).bounds
    assert (abs(left - 256), abs(top - 192), abs(right - 448), abs(bottom - 576)) < (17, 17, 17, 17)
    view = ViewConfig(slide=task.slide_path, features=config.out, annotations=config.annotations)
    with open_view(view) as server:
        shapes = {shape["name"]: shape for shape in json.loads(server._pages.get("shapes.json", {})[0])}
    for name in ("tissue", "annotation ROI"):
        x, y = np.array(shapes[name]["polygons"][0][0]).reshape(-1, 2).min(axis=0)
        assert abs(x - X - 256) < 17
        assert abs(y - Y - 192) < 17


def test_an_inventory_that_does_not_know_the_area_is_refused_for_annotations(
    config: ExtractConfig, encoder: Encoder
) -> None:
    records = [replace(record, bounds="") for record in take_inventory(config.slides)]
    row = extract_slide(make_tasks(config, records, None)[0], encoder)
    assert row.status == "failed"
    assert "write it again with wsi-ncmi inventory" in row.reason
    plain = make_tasks(replace(config, annotations=None, out=config.out / "b"), records, None)[0]
    assert extract_slide(plain, encoder).status == "done"
