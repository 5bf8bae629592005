"""The real slide with a drawn pyramid as OME-TIFF and plain pyramid: the features of the SVS, bit for bit."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.extraction.conftest import Tasks
from tests.slides.ome_slide import OME, image_xml, stored_levels, write_nested, write_stored
from wsi_ncmi.encoders import Encoder
from wsi_ncmi.extraction.pipeline.pipeline import extract_slide
from wsi_ncmi.features import feature_path, open_features_file
from wsi_ncmi.slides import open_slide
from wsi_ncmi.tiling import GridConfig

pytestmark = pytest.mark.real_data
SIZE = 'PhysicalSizeX="499" PhysicalSizeXUnit="nm" PhysicalSizeY="0.499"'


def pyramid(real: Path, path: Path) -> Path:
    """A part of the real slide in its own codestreams, and two coarser levels made of its pixels."""
    ((page, tiles),) = stored_levels(real)
    side, across = page.tilewidth, -(-page.imagewidth // page.tilewidth)
    part = [tiles[row * across + column] for row in range(2, 6) for column in range(4, 8)]
    with open_slide(real) as slide:
        picture = Image.fromarray(slide.read_region(4 * side, 2 * side, 0, 4 * side, 4 * side))
    options = {
        "tile": (side, side), "compression": 7, "metadata": None, "dtype": np.uint8, "photometric": "rgb",
        "description": page.description,
    }  # fmt: skip
    with tifffile.TiffWriter(path) as file:
        tables = [(347, 7, len(page.jpegtables), page.jpegtables, True)]
        file.write(iter(part), shape=(4 * side, 4 * side, 3), extratags=tables, **options)
        for factor in (2, 4):
            level = np.asarray(picture.resize((picture.width // factor,) * 2, Image.Resampling.BOX))
            streams = [
                imagecodecs.jpeg8_encode(
                    np.ascontiguousarray(level[y : y + side, x : x + side]), level=90, colorspace="rgb",
                    outcolorspace="rgb", subsampling="444",
                )
                for y in range(0, level.shape[0], side)
                for x in range(0, level.shape[1], side)
            ]  # fmt: skip
            file.write(iter(streams), shape=level.shape, **options)
    return path


def features(task, encoder: Encoder) -> tuple[np.ndarray, np.ndarray, str]:
    row = extract_slide(task, encoder)
    assert row.status == "done", row.reason
    file = open_features_file(feature_path(task.out, "descriptor", task.record.slide_id))
    return file.features[:], file.coords[:], row.mpp_source


@pytest.mark.parametrize(("mpp", "tile_px", "lossless"), [(0.499, 112, False), (1.996, 56, True)])
def test_every_form_of_the_slide_gives_the_features_of_the_svs(
    real_data: Path, tasks: Tasks, encoder: Encoder, tmp_path: Path, mpp: float, tile_px: int, lossless: bool
) -> None:
    folder = tmp_path / "slides"
    folder.mkdir()
    source = pyramid(real_data / "slides" / "CMU-1-Small-Region.svs", folder / "a.svs")
    text = OME.format(root="", body=image_xml(960, 960, physical=SIZE))
    if lossless:
        with open_slide(source) as slide:
            assert slide.level_dimensions == ((960, 960), (480, 480), (240, 240))
            levels = [slide.read_region(0, 0, n, *size) for n, size in enumerate(slide.level_dimensions)]
        reversible = {"reversible": True, "mct": True}
        write_nested(folder / "b.ome.tif", levels, description=text, compression="lzw")
        write_nested(
            folder / "c.ome.tif", levels, description=text, compression=33005, compressionargs=reversible
        )
    else:
        write_stored(folder / "b.ome.tif", stored_levels(source), description=text)
        write_stored(folder / "c.tif", stored_levels(source), nested=False, description=text)
    made = {
        task.record.slide_id: features(task, encoder)
        for task in tasks(root=folder, grid=GridConfig(mpp=mpp, tile_px=tile_px))
    }
    expected = made.pop("a")
    assert expected[2] == "vendor"
    assert len(expected[0]) >= (20 if mpp < 1 else 5)
    assert sorted(made) == ["b", "c"]
    for name, (rows, coords, source_of_mpp) in made.items():
        assert source_of_mpp == "ome", name
        np.testing.assert_array_equal(coords, expected[1], err_msg=name)
        np.testing.assert_array_equal(rows, expected[0], err_msg=name)
