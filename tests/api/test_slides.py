"""Slides under OpenSlide's names, and embeddings in memory equal to those of the files."""

from __future__ import annotations

import numpy as np
import openslide
import pytest
from PIL import Image

import wsi_ncmi
from tests.api.snippets import make_inputs
from wsi_ncmi.core.errors import InputError, SlideError
from wsi_ncmi.features import open_features_file


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("slides")
    make_inputs(found)
    return found


def regions(slide) -> list[tuple[tuple[int, int], int, tuple[int, int]]]:
    width, height = slide.dimensions
    found = [((0, 0), 0, (300, 200)), ((-50, -20), 0, (200, 100)), ((width - 40, height - 30), 0, (100, 90))]
    return found + [((16, 16), level, (64, 48)) for level in range(slide.level_count)]


@pytest.mark.real_data
def test_a_real_slide_is_what_openslide_says(real_data):
    path = real_data / "slides" / "CMU-1-Small-Region.svs"
    same_as_openslide(path)
    assert wsi_ncmi.open_slide(path).mpp == pytest.approx(0.499)


def same_as_openslide(path) -> None:
    with openslide.OpenSlide(path) as theirs, wsi_ncmi.open_slide(path) as ours:
        assert ours.dimensions == theirs.dimensions
        assert ours.level_count == theirs.level_count
        assert ours.level_dimensions == theirs.level_dimensions
        assert ours.level_downsamples == pytest.approx(theirs.level_downsamples)
        for factor in (0.5, 1, 3, 9, 100):
            level = ours.get_best_level_for_downsample(factor)
            assert level == theirs.get_best_level_for_downsample(factor)
        for region in regions(theirs):
            mine, other = ours.read_region(*region), theirs.read_region(*region)
            assert mine.mode == other.mode
            assert np.array_equal(np.asarray(mine), np.asarray(other)), region
        assert ours.get_thumbnail((90, 90)).size == theirs.get_thumbnail((90, 90)).size


def test_a_drawn_slide_is_what_openslide_says(folder):
    same_as_openslide(folder / "slide.svs")


def test_both_forms_read_the_same_pixels(folder):
    with wsi_ncmi.open_slide(folder / "slide.svs") as slide:
        picture = slide.read_region(location=(10, 20), level=0, size=(30, 40))
        assert np.array_equal(np.asarray(picture)[..., :3], slide.read_region(10, 20, 0, 30, 40))


@pytest.mark.parametrize(
    "arguments",
    [
        ((0, 0), 9, (4, 4)),
        ((0, 0), 0, (0, 4)),
        ((0.5, 0), 0, (4, 4)),
        (0, 0, (4, 4)),
        ("00", 0, (4, 4)),
        (None, 0, 1),
    ],
)
def test_a_wrong_region_is_one_sentence(arguments, folder):
    with (
        wsi_ncmi.open_slide(folder / "slide.svs") as slide,
        pytest.raises(InputError, match="read_region takes"),
    ):
        slide.read_region(*arguments)


def test_a_slide_says_what_it_is_and_shows_no_label(folder):
    slide = wsi_ncmi.open_slide(folder / "slide.svs")
    assert repr(slide) == "<Slide slide.svs: 640 × 512 px, 0.5 µm per pixel, 3 levels, aperio>"
    assert "<img" in slide._repr_html_()
    slide.close()
    assert "<img" not in slide._repr_html_()


@pytest.mark.parametrize("encoder", ["descriptor", "loaded"])
def test_embeddings_in_memory_are_those_of_the_file(encoder, folder, tmp_path):
    more = {"tissue": {"method": "hed"}, "min_tissue": 0.5}
    given = wsi_ncmi.load_encoder("descriptor") if encoder == "loaded" else encoder
    features, coords = wsi_ncmi.embed_slide(folder / "slide.svs", given, mpp=0.7, tile_px=48, **more)
    result = wsi_ncmi.extract(
        folder / "slide.svs", tmp_path, encoder="descriptor", mpp=0.7, tile_px=48, workers=1, **more
    )
    (file,) = result.files["features"].glob("*.h5")
    stored = open_features_file(file)
    assert len(features) > 3
    assert np.array_equal(features, stored.features)
    assert np.array_equal(coords, stored.coords)
    assert features.dtype == np.float16


@pytest.mark.parametrize("size", [0, None, (0, 5), (5,), "ab", (float("nan"), 5)])
def test_a_wrong_thumbnail_is_one_sentence(size, folder):
    with wsi_ncmi.open_slide(folder / "slide.svs") as slide:
        with pytest.raises(InputError, match="size of a thumbnail"):
            slide.get_thumbnail(size)
        with pytest.raises(InputError, match="downsample is a number"):
            slide.get_best_level_for_downsample("x")
    with pytest.raises(InputError, match="holds a zero byte"):
        wsi_ncmi.open_slide("a\0.svs")


def test_a_slide_without_tissue_has_no_rows(tmp_path):
    from wsi_ncmi.synthesis import write_pyramid

    write_pyramid(tmp_path / "glass.svs", np.full((256, 256, 3), 245, np.uint8), 0.5)
    with wsi_ncmi.open_slide(tmp_path / "glass.svs") as slide:
        features, coords = wsi_ncmi.embed_slide(slide, tile_px=64)
    assert features.shape == (0, 229)
    assert coords.shape == (0, 2)


WRONG = {
    "no such slide": (("missing.svs",), {}, InputError, "no slide .*missing.svs"),
    "a folder": (("slides",), {}, InputError, "give the path of one file"),
    "an encoder": (("slide.svs", "uni_v9"), {}, InputError, "no encoder 'uni_v9'"),
    "a setting": (("slide.svs",), {"til_px": 3}, InputError, "did you mean 'tile_px'"),
    "a number": (("slide.svs",), {"mpp": "fine"}, InputError, "'grid.mpp'"),
    "two of that name": (("slide.svs",), {"method": "otsu"}, InputError, "several settings method"),
    "coarse": (("slide.svs",), {"mpp": 0.1}, SlideError, "coarser than the target"),
    "no slide at all": (("labels.csv",), {}, (InputError, SlideError), "labels"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_slide_that_can_t_be_embedded(fault, folder, monkeypatch):
    arguments, settings, kind, message = WRONG[fault]
    monkeypatch.chdir(folder)
    with pytest.raises(kind, match=message):
        wsi_ncmi.embed_slide(*arguments, **settings)


@pytest.mark.parametrize("path", [3, None, b"slide.svs"])
def test_a_slide_is_given_by_its_path(path):
    with pytest.raises(InputError, match="given by its path"):
        wsi_ncmi.open_slide(path)


def test_an_encoder_takes_tiles_as_people_hold_them():
    encoder = wsi_ncmi.load_encoder("descriptor")
    tiles = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), np.uint8)
    expected = encoder.encode(tiles)
    pictures = [Image.fromarray(tile) for tile in tiles]
    for given in (tiles, list(tiles), pictures):
        assert np.array_equal(encoder(given), expected)
    assert np.array_equal(encoder(pictures[0]), expected[:1])
    assert np.array_equal(encoder(tiles[0]), expected[:1])
    assert repr(encoder) == "<Encoder descriptor: 229 features, numpy, fp32>"


@pytest.mark.parametrize(
    "tiles",
    [
        "tile.png",
        None,
        np.zeros((2, 64, 64, 3)),
        np.zeros((2, 64, 32, 3), np.uint8),
        np.zeros((64, 64), np.uint8),
        [],
    ],
)
def test_what_is_no_tile_is_told(tiles):
    with pytest.raises(InputError, match="takes RGB tiles"):
        wsi_ncmi.load_encoder("descriptor")(tiles)


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        (("descripto",), {}, "did you mean 'descriptor'|did you mean descriptor"),
        (("descriptor",), {"weigths": "x"}, "did you mean 'weights'"),
        (("descriptor",), {"weights": "x.pt"}, "has no weights"),
        ((3,), {}, "by its name and settings"),
    ],
)
def test_an_encoder_that_can_t_be_loaded(arguments, settings, message):
    with pytest.raises(InputError, match=message):
        wsi_ncmi.load_encoder(*arguments, **settings)
