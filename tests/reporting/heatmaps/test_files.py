"""GeoJSON, overlay, pictures and gallery: read back by other programs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import openslide
import pytest
import shapely
import tifffile
from PIL import Image

from tests.reporting.heatmaps.tiles import values
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import atomic_path
from wsi_ncmi.reporting.heatmaps import (
    TileValues,
    draw_comparison,
    draw_gallery,
    draw_heatmap,
    heatmap_path,
    rasterise,
    write_comparison,
    write_heatmaps,
    write_overlay,
    write_tiles_geojson,
)
from wsi_ncmi.reporting.heatmaps.drawing import blank_slide, rank_correlation, scale_bar, top_tiles
from wsi_ncmi.reporting.heatmaps.values import COLOUR_TABLE, colours_of, scaled
from wsi_ncmi.slides import open_slide


@pytest.fixture(scope="module")
def tiles() -> TileValues:
    return values()


def test_geojson_read_by_shapely_is_the_same_geometry_to_the_pixel(tiles: TileValues, tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    write_tiles_geojson(path, tiles, coloured_by="attention")
    shapes = shapely.get_parts(shapely.from_geojson(path.read_text()))
    assert len(shapes) == len(tiles)
    np.testing.assert_array_equal(shapely.bounds(shapes), tiles.boxes)  # equal, not nearly
    assert shapely.is_valid(shapes).all()
    np.testing.assert_allclose(shapely.area(shapes), 100.5 * 99.5)
    assert shapely.is_ccw(shapely.get_exterior_ring(shapes)).tolist() == [True] * len(tiles)


@pytest.mark.parametrize(
    "classes", [("腺癌", "鱗癌", "大細胞癌"), ("T1+", "T1?", "T1*"), ("Tumour", "tumour", "TUMOUR"), ("x" * 300, "x" * 299, "癌" * 99)]
)  # fmt: skip
@pytest.mark.parametrize("slide_id", ["s", "s" * 200])
def test_every_class_has_files_of_its_own(classes: tuple[str, ...], slide_id: str, tmp_path: Path) -> None:
    some = values()
    layers = tuple(
        replace(layer, name=f"evidence {name}") for layer, name in zip(some.layers[1:], classes, strict=True)
    )
    tiles = replace(some, slide_id=slide_id, layers=layers)
    paths = [heatmap_path(tmp_path, tiles, layer.name, "_absolute.overlay.tif") for layer in layers]
    assert len({path.name.casefold() for path in paths}) == 3
    for path in paths:
        assert path.name.startswith("s")
        with atomic_path(path) as temporary:
            temporary.touch()


def test_classes_that_differ_in_a_sign_are_drawn_apart(tmp_path: Path) -> None:
    some = values()
    names = ["evidence T1+", "evidence T1?"]
    layers = tuple(replace(layer, name=name) for layer, name in zip(some.layers, names, strict=False))
    tiles = replace(some, layers=layers)
    for name in names:  # one after the other, as two jobs of a class each would draw them
        write_heatmaps(tmp_path, tiles, None, layers=[name], scales=["absolute"], top=0)
    write_comparison(tmp_path, tiles, tiles, None, layers=names, scales=["absolute"], names=("a", "b"))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "slide.compare.json",
        "slide_evidence_T1-plus-sign_absolute.compare.png",
        "slide_evidence_T1-plus-sign_absolute.png",
        "slide_evidence_T1-question-mark_absolute.compare.png",
        "slide_evidence_T1-question-mark_absolute.png",
    ]


def test_geojson_read_by_geopandas(tiles: TileValues, tmp_path: Path) -> None:
    geopandas = pytest.importorskip("geopandas")
    write_tiles_geojson(tmp_path / "a.geojson", tiles, coloured_by="attention")
    frame = geopandas.read_file(tmp_path / "a.geojson")
    np.testing.assert_array_equal(frame.bounds.to_numpy(), tiles.boxes)
    told = [
        json.loads(m)["evidence b"] if isinstance(m, str) else m["evidence b"] for m in frame["measurements"]
    ]
    np.testing.assert_allclose(told, tiles.layer("evidence b").values, rtol=1e-7)


def test_geojson_has_qupaths_form_values_and_colours(tiles: TileValues, tmp_path: Path) -> None:
    write_tiles_geojson(tmp_path / "a.geojson", tiles, coloured_by="evidence a", scale="absolute")
    content = json.loads((tmp_path / "a.geojson").read_text())
    assert content["type"] == "FeatureCollection"
    layer = tiles.layer("evidence a")
    for i, feature in enumerate(content["features"]):
        properties = feature["properties"]
        assert properties["objectType"] == "tile"
        assert set(properties["measurements"]) == {layer.name for layer in tiles.layers} | {
            "evidence a percentile"
        }
        assert properties["measurements"]["attention"] == float(tiles.layer("attention").values[i])
        assert properties["color"] == colours_of(layer.values)[i].tolist()


def test_geojson_of_no_tiles_is_valid(tmp_path: Path) -> None:
    none = values()
    none = TileValues("s", none.coords[:0], none.tile_level0, none.size_level0, tuple(
        type(layer)(layer.name, layer.values[:0], layer.kind) for layer in none.layers
    ))  # fmt: skip
    write_tiles_geojson(tmp_path / "a.geojson", none, coloured_by="attention")
    assert json.loads((tmp_path / "a.geojson").read_text())["features"] == []


def test_the_overlay_lies_over_the_slide_at_every_level(tmp_path: Path) -> None:
    tiles = values(40, 30, (256.0, 256.0))
    downsample = write_overlay(
        tmp_path / "o.tif", replace(tiles, mpp=(0.25, 0.25)), "attention", "percentile"
    )
    assert downsample == 16
    with tifffile.TiffFile(tmp_path / "o.tif") as file:
        assert all(page.is_tiled for page in file.pages)
        for number, page in enumerate(file.pages):
            step = downsample << number
            pixels = page.asarray()
            assert pixels.shape == (-(-tiles.size_level0[1] // step), -(-tiles.size_level0[0] // step), 4)
            h, w = pixels.shape[:2]
            mean, covered = rasterise(
                tiles.boxes, scaled(tiles.layers[0], "percentile"), (0, 0, w * step, h * step), (h, w)
            )
            np.testing.assert_array_equal(pixels[..., 3], np.rint(covered * 255))
            np.testing.assert_array_equal(pixels[..., :3], colours_of(mean))
        assert page.imagewidth <= 256  # the last one
    # A tile of 256 px is 16 × 16 pixels of one colour here, and nothing is beside it.
    finest = tifffile.imread(tmp_path / "o.tif", key=0)
    x, y = tiles.coords[7] // 16
    assert (finest[y : y + 16, x : x + 16] == finest[y, x]).all()
    assert finest[y, x, 3] == 255


def test_the_overlay_says_where_the_scanned_area_begins_that_qupath_shows(tmp_path: Path) -> None:
    tiles = values(40, 30, (256.0, 256.0))
    said = {}
    for origin in ((0, 0), (1024, 512)):
        write_overlay(tmp_path / "o.tif", tiles, "attention", "percentile", origin)
        with tifffile.TiffFile(tmp_path / "o.tif") as file:
            said[origin] = file.pages[0].description, file.pages[0].asarray()
    assert "scanned area" not in said[0, 0][0]
    assert said[1024, 512][0].startswith(said[0, 0][0])
    assert "begins at 1024, 512 px" in said[1024, 512][0]
    np.testing.assert_array_equal(said[0, 0][1], said[1024, 512][1])


def test_openslide_opens_the_overlay_with_its_resolution(tmp_path: Path) -> None:
    tiles = values(40, 30, (256.0, 256.0))
    write_overlay(tmp_path / "o.tif", replace(tiles, mpp=(0.25, 0.5)), "attention", "absolute")
    with openslide.OpenSlide(tmp_path / "o.tif") as slide:
        assert slide.level_count >= 2
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.25 * 16, rel=1e-4)
        assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(0.5 * 16, rel=1e-4)


def test_a_heatmap_has_the_tiles_colour_at_the_tiles_place(tiles: TileValues) -> None:
    picture = np.full((tiles.size_level0[1], tiles.size_level0[0], 3), 255, np.uint8)  # a pixel a pixel
    drawn = np.asarray(draw_heatmap(picture, tiles, "evidence b", "absolute", opacity=1.0))
    expected = colours_of(scaled(tiles.layer("evidence b"), "absolute"))
    for i, (x, y) in enumerate(tiles.coords):
        assert (drawn[y + 50, x + 50] == expected[i]).all()
    assert (drawn[tiles.size_level0[1] - 1, tiles.size_level0[0] - 1] == 255).all()  # no tile, no colour
    bar = [tuple(c) for c in COLOUR_TABLE]
    below = drawn[tiles.size_level0[1] :].reshape(-1, 3)
    assert len({tuple(p) for p in below} & set(bar)) > 200  # the colour bar


def test_opacity_and_comparison(tiles: TileValues) -> None:
    picture = blank_slide(tiles.size_level0, 300)
    nothing = np.asarray(draw_heatmap(picture, tiles, "attention", "percentile", opacity=0.0))
    assert (nothing[: picture.shape[0], : picture.shape[1]] == 255).all()
    single = draw_heatmap(picture, tiles, "attention", "percentile")
    both = draw_comparison(picture, tiles, values(seed=0), "attention", "percentile", ("one", "two"))
    assert both.width > 2 * min(single.width, picture.shape[1])
    assert rank_correlation(tiles, values(seed=0), "attention") == pytest.approx(1)
    assert rank_correlation(tiles, values(seed=1), "attention") is None  # other tiles
    with pytest.raises(InputError, match="no tile value"):
        draw_comparison(picture, tiles, tiles, "evidence z", "percentile", ("one", "two"))


def test_the_gallery_shows_the_largest_first(tmp_path: Path, tiles: TileValues) -> None:
    layer = tiles.layer("attention")
    rows = top_tiles(layer, 5)
    np.testing.assert_array_equal(layer.values[rows], np.sort(layer.values)[::-1][:5])
    # Each tile of the slide has a grey level of its own, by which it is known in the gallery.
    pixels = np.full((tiles.size_level0[1], tiles.size_level0[0], 3), 255, np.uint8)
    for i, (x, y) in enumerate(tiles.coords):
        pixels[y : y + 100, x : x + 100] = 10 + 6 * i
    Image.fromarray(pixels).save(tmp_path / "s.png")
    with open_slide(tmp_path / "s.png") as slide:
        gallery = np.asarray(draw_gallery(slide, tiles, "attention", 5))
    heading = len(gallery) - 2 * 238
    assert heading > 12
    for position, row in enumerate(rows):
        cell = gallery[heading + (position // 4) * 238 + 100, (position % 4) * 204 + 100]
        np.testing.assert_allclose(cell, 10 + 6 * row, atol=1)


@pytest.mark.parametrize(
    ("um_per_px", "longest", "length", "words"),
    [(1.0, 256, 200, "200 µm"), (0.25, 100, 80, "20 µm"), (40, 256, 250, "10 mm"), (10, 100, 100, "1 mm"), (0.02, 60, 50, "1 µm")],
)  # fmt: skip
def test_a_scale_bar_is_a_round_length(um_per_px: float, longest: float, length: float, words: str) -> None:
    assert scale_bar(um_per_px, longest) == (pytest.approx(length), words)


def test_a_heatmap_has_a_scale_bar_of_its_length(tiles: TileValues) -> None:
    picture = blank_slide(tiles.size_level0)
    plain = draw_heatmap(picture, tiles, "attention", "absolute")
    drawn = draw_heatmap(picture, replace(tiles, mpp=(0.5, 0.5)), "attention", "absolute")
    assert drawn.height > plain.height
    below = np.asarray(drawn.convert("L"))[picture.shape[0] :, : picture.shape[1] // 3] < 128
    longest = max(
        np.diff(np.flatnonzero(np.diff(np.pad(row.astype(int), 1)))).max() for row in below[:20] if row.any()
    )
    um_per_px = 0.5 * tiles.size_level0[0] / picture.shape[1]
    length, words = scale_bar(um_per_px, picture.shape[1] / 4)
    assert words == "50 µm"
    assert abs(longest - length) <= 3


def test_no_title_makes_a_picture_wider_or_is_cut(tiles: TileValues) -> None:
    layer = replace(tiles.layer("evidence a"), name="evidence " + "adenocarcinoma with lepidic growth " * 9)
    picture = blank_slide(tiles.size_level0)
    drawn = draw_heatmap(picture, replace(tiles, layers=(layer,)), layer.name, "absolute")
    assert drawn.width == picture.shape[1]
    assert drawn.height > draw_heatmap(picture, tiles, "evidence a", "absolute").height + 19
    assert (np.asarray(drawn)[picture.shape[0] :, -4:] == 255).all()
