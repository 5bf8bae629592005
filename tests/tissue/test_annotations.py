"""Annotations of QuPath and ASAP, told apart by content, and what they do to a mask."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageDraw

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.tissue import (
    Annotation,
    AnnotationConfig,
    Annotations,
    TissueMask,
    apply_annotations,
    find_annotations,
    mask_polygons,
    read_annotations,
    write_annotations,
)
from wsi_ncmi.tissue.mask import raster

HEAD = '<?xml version="1.0"?><ASAP_Annotations><Annotations>'
TAIL = "</Annotations><AnnotationGroups/></ASAP_Annotations>"


def asap(kind: str, group: str, points: list[tuple[object, object]]) -> str:
    inner = "".join(f'<Coordinate Order="{i}" X="{x}" Y="{y}"/>' for i, (x, y) in enumerate(points))
    return f'<Annotation Name="a" Type="{kind}" PartOfGroup="{group}"><Coordinates>{inner}</Coordinates></Annotation>'


SQUARE = [(0, 0), (8, 0), (8, 8), (0, 8)]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def collection(*named: tuple[str, shapely.Polygon]) -> str:
    features = [
        {"type": "Feature", "geometry": shapely.geometry.mapping(p),
         "properties": {"objectType": "annotation", "classification": {"name": name}}}
        for name, p in named
    ]  # fmt: skip
    return json.dumps({"type": "FeatureCollection", "features": features})


@given(
    arrays(bool, st.tuples(st.integers(1, 14), st.integers(1, 14))),
    st.floats(0.5, 70.0),
    st.floats(0.5, 70.0),
)
@settings(max_examples=120, deadline=None)
def test_any_mask_comes_back_to_the_pixel_through_a_file(pixels: np.ndarray, dx: float, dy: float) -> None:
    import tempfile

    mask = TissueMask(pixels, dx, dy, "drawn")
    if not pixels.any():
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.geojson"
        write_annotations(path, {"tissue": mask_polygons(mask)})
        blank = TissueMask(~pixels, dx, dy, "drawn")
        np.testing.assert_array_equal(apply_annotations(blank, read_annotations(path)).mask, pixels)


@given(st.lists(st.tuples(st.integers(-500, 3000), st.integers(-500, 3000)), min_size=3, max_size=9))
@settings(max_examples=120, deadline=None)
def test_a_pixel_is_inside_where_its_middle_is(points: list[tuple[int, int]]) -> None:
    shape = shapely.make_valid(shapely.Polygon([(x / 100, y / 100) for x, y in points]))
    polygons = [p for p in shapely.get_parts(shapely.get_parts([shape])) if isinstance(p, shapely.Polygon)]
    if not polygons:
        return
    found = raster(polygons, (20, 12), 2.0, 1.25)
    y, x = np.indices((20, 12)) + 0.5
    union = shapely.union_all(polygons)
    clear = shapely.distance(shapely.boundary(union), shapely.points(x * 2.0, y * 1.25)) > 1e-6
    np.testing.assert_array_equal(found[clear], shapely.contains_xy(union, x * 2.0, y * 1.25)[clear])


def test_overlapping_areas_are_joined_not_cut() -> None:
    both = raster([shapely.box(0, 0, 6, 6), shapely.box(3, 3, 9, 9)], (10, 10), 1.0, 1.0)
    assert both.sum() == 36 + 36 - 9


def test_asap_groups_shapes_and_decimal_commas_are_read(tmp_path: Path) -> None:
    shuffled = '<Annotation Name="r" Type="Rectangle" PartOfGroup="_2"><Coordinates>' + "".join(
        f'<Coordinate Order="{i}" X="{x}" Y="{y}"/>' for i, x, y in ((2, 3, 2), (0, 1, 1), (3, 1, 2), (1, 3, 1))
    ) + "</Coordinates></Annotation>"  # fmt: skip
    text = HEAD + "".join([
        asap("Polygon", "_0", [("0,5", "0,5"), ("8,5", "0,5"), ("8,5", "8,5"), ("0,5", "8,5")]),
        shuffled,
        asap("Spline", "metastases", [(10, 0), (0, 10), (-10, 0), (0, -10)]),
        asap("Dot", "metastases", [(1, 1)]),
        asap("Polygon", "None", SQUARE),
    ]) + TAIL  # fmt: skip
    found = read_annotations(write(tmp_path / "t.xml", text))
    assert [area.name for area in found] == ["_0", "_2", "metastases", ""]
    assert found[0].polygon.equals(shapely.box(0.5, 0.5, 8.5, 8.5))
    assert found[1].polygon.equals(shapely.box(1, 1, 3, 2)), (
        "coordinates are in the order they are numbered in"
    )
    spline = found[2].polygon
    assert all(shapely.distance(spline.exterior, shapely.Point(p)) < 1e-9 for p in ((10, 0), (0, -10)))
    assert 200 < spline.area < np.pi * 100, "a curve bulges beyond the square through its points"
    assert found.notes == ("1 dot objects are no areas and were left out",)


def test_camelyon_lesions_change_no_tissue(tmp_path: Path) -> None:
    text = HEAD + asap("Polygon", "_0", SQUARE) + asap("Polygon", "_2", SQUARE) + TAIL
    mask = TissueMask(np.eye(5, dtype=bool), 4.0, 4.0, "hed")
    after = apply_annotations(mask, read_annotations(write(tmp_path / "t.xml", text)))
    np.testing.assert_array_equal(after.mask, mask.mask)
    assert "changes the tissue" in after.note
    assert after.parameters["annotations"]["other"] == 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('<!DOCTYPE a [<!ENTITY b "c">]>' + HEAD + TAIL, "document type"),
        ("<svg/>", "XML with the root svg"),
        ('<Annotations MicronsPerPixel="0.5"><Annotation><Regions/></Annotation></Annotations>', "is ImageScope's or HALO's XML"),
        ("<object_clip><annotations>", "XML with the root object_clip"),
        ("<Annotations><Ann", "is ImageScope's or HALO's XML"),
        ("no xml", "can't be read"),
        (HEAD + TAIL, "no area"),
        (HEAD, "no element found"),
        (HEAD + asap("Polygon", "a", [("nan", 0), (1, 0), (1, 1)]) + TAIL, "finite"),
        (HEAD + asap("Polygon", "a", [("x", 0), (1, 0), (1, 1)]) + TAIL, "could not convert"),
        (HEAD + '<Annotation Type="Polygon"><Coordinate Order="0" Y="1"/></Annotation>' + TAIL, "'X' is missing"),
        (HEAD + asap("Polygon", "a", [(0, 0), (1, 0)]) + TAIL, "no area"),
        ("", "empty"),
        ('{"type": "FeatureCollection", "features": []}', "no annotation"),
        (b"\x1f\x8b\x08\x00broken", ""),
        (b"PK\x03\x04broken", ""),
        (b"\x00\x01\x02", ""),
    ],
)  # fmt: skip
def test_bad_files_are_refused_in_one_sentence(tmp_path: Path, content: str | bytes, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        read_annotations(write(tmp_path / "s.any", content))
    text = str(caught.value)
    assert text.startswith("s.any ")
    assert reason in text
    assert "\n" not in text
    assert str(tmp_path) not in text


def test_entities_are_never_expanded(tmp_path: Path) -> None:
    bomb = '<!DOCTYPE z [<!ENTITY a "xxxxxxxxxx"><!ENTITY b "&a;&a;&a;&a;">]>' + HEAD + "&b;" + TAIL
    with pytest.raises(InputError, match="document type"):
        read_annotations(write(tmp_path / "bomb.xml", bomb))


def test_packed_geojson_is_the_same(tmp_path: Path) -> None:
    text = collection(("Tumor", shapely.box(0, 0, 8, 8)))
    plain = read_annotations(write(tmp_path / "a.geojson", "\ufeff" + text))
    packed = read_annotations(write(tmp_path / "a.geojson.gz", gzip.compress(text.encode())))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.geojson", text)
    zipped = read_annotations(tmp_path / "a.zip")
    assert plain.sha256 == packed.sha256 == zipped.sha256


def test_identity_is_that_of_the_areas_not_of_the_bytes() -> None:
    square, other = shapely.box(0, 0, 8, 8), shapely.box(9, 9, 12, 12)
    turned = shapely.Polygon([(8, 8), (8, 0), (0, 0), (0, 8)])
    one = Annotations([Annotation(square, "a"), Annotation(other, "b")]).sha256
    assert one == Annotations([Annotation(other, "b"), Annotation(turned, "a")]).sha256
    assert one != Annotations([Annotation(square, "b"), Annotation(other, "b")]).sha256
    assert one != Annotations([Annotation(shapely.box(0, 0, 8, 8.001), "a"), Annotation(other, "b")]).sha256


def test_what_is_no_annotation_of_qupath_is_left_out_and_said(tmp_path: Path) -> None:
    cell = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 1]}, "properties": {}}
    detection = {"type": "Feature", "geometry": shapely.geometry.mapping(shapely.box(0, 0, 1, 1)),
                 "properties": {"objectType": "detection"}}  # fmt: skip
    drawn = {"type": "Feature", "geometry": shapely.geometry.mapping(shapely.box(0, 0, 8, 8)),
             "properties": {"objectType": "annotation", "classification": {"names": ["Tumor", "Positive"]}}}  # fmt: skip
    bow = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [8, 8], [8, 0], [0, 8], [0, 0]]]},
    }
    path = write(tmp_path / "a.geojson", json.dumps([cell, detection, drawn, bow]))
    found = read_annotations(path)
    assert [area.name for area in found] == ["Tumor: Positive", "", ""]
    assert len(found.notes) == 3
    assert "mended" in found.notes[-1]


FULL = TissueMask(np.ones((10, 10), bool), 1.0, 1.0, "hed", {"threshold_used": 0.1}, "said before")


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ([("Tissue", shapely.box(0, 0, 5, 10))], 50),
        ([("", shapely.box(0, 0, 4, 10))], 40),
        ([("Region*", shapely.box(0, 0, 3, 10))], 30),
        ([("Ignore*", shapely.box(0, 0, 3, 10))], 70),
        ([(" exclude ", shapely.box(0, 0, 1, 10)), ("ROI", shapely.box(0, 0, 3, 10))], 20),
        ([("tissue", shapely.box(0, 0, 2, 10)), ("add", shapely.box(4, 0, 6, 10))], 40),
        ([("Tumor", shapely.box(0, 0, 2, 10)), ("pen", shapely.box(0, 0, 2, 10))], 100),
    ],
)
def test_roles_of_areas(named: list[tuple[str, shapely.Polygon]], expected: int) -> None:
    after = apply_annotations(FULL, [Annotation(polygon, name) for name, polygon in named])
    assert after.mask.sum() == expected
    assert after.parameters["threshold_used"] == 0.1
    assert json.loads(json.dumps(after.parameters))["annotations"]["sha256"]
    assert FULL.mask.all(), "the mask that was given is not changed"


def test_class_names_are_a_choice() -> None:
    options = AnnotationConfig(tissue=("gewebe",), exclude=("tumor",))
    areas = [Annotation(shapely.box(0, 0, 2, 10), "Tumor"), Annotation(shapely.box(0, 0, 2, 10), "tissue")]
    assert apply_annotations(FULL, areas, options).mask.sum() == 80


def test_files_are_found_by_the_slide_and_two_are_refused(tmp_path: Path) -> None:
    assert find_annotations(tmp_path, "a") is None
    (tmp_path / "a.xml").write_text("x")
    (tmp_path / "ab.geojson").write_text("x")
    assert find_annotations(tmp_path, "a") == tmp_path / "a.xml"
    (tmp_path / "a.geojson").write_text("x")
    with pytest.raises(InputError, match=r"two annotation files, a\.geojson and a\.xml"):
        find_annotations(tmp_path, "a")
    with pytest.raises(InputError, match="isn't there"):
        find_annotations(tmp_path / "none", "a")


def test_an_outline_of_many_vertices_is_rastered_exactly() -> None:
    t = np.linspace(0, 2 * np.pi, 60_000, endpoint=False)
    ring = shapely.Polygon(np.column_stack([500 + 400 * np.cos(t), 500 + 400 * np.sin(t)]))
    found = raster([ring], (1000, 1000), 1.0, 1.0)
    image = Image.new("1", (2000, 2000))
    ImageDraw.Draw(image).ellipse((200, 200, 1800, 1800), fill=1)
    assert abs(int(found.sum()) - ring.area) < 400
    assert (found != np.asarray(image)[::2, ::2]).mean() < 0.002


def test_letters_that_are_no_utf8_are_replaced_with_a_note(tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    area = {"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [9, 9], [0, 0]]]}
    feature = {"type": "Feature", "properties": {"classification": {"name": "#"}}, "geometry": area}
    path.write_bytes(json.dumps(feature).encode().replace(b"#", b"r\xe9gion"))
    areas = read_annotations(path)
    assert areas[0].name == "r\ufffdgion"
    assert "no UTF-8" in areas.notes[0]
