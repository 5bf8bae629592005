"""The real Aperio slide through ``extract``: tiles, resolution, coordinates and pixels against OpenSlide."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openslide
import pytest
from typer.testing import CliRunner

from wsi_ncmi.cli.app import app
from wsi_ncmi.encoders import EncoderConfig, load_encoder
from wsi_ncmi.features import open_features_file, verify_file

pytestmark = pytest.mark.real_data

SLIDE = "CMU-1-Small-Region"


@pytest.mark.parametrize(("encoder", "width"), [("descriptor", 229), ("torchvision:squeezenet1_1", 512)])
def test_extract_on_the_real_slide(real_data: Path, tmp_path: Path, encoder: str, width: int) -> None:
    path = real_data / "slides" / f"{SLIDE}.svs"
    weights = ("--weights", str(real_data / "encoders")) if ":" in encoder else ()
    result = CliRunner().invoke(
        app,
        ["extract", str(path), "--out", str(tmp_path), "--encoder", encoder, *weights, "--mpp", "0.499",
         "--tile-px", "224", "--workers", "1", "--quiet"],
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    (file,) = (tmp_path / "features").glob("*/*.h5")
    assert verify_file(file).ok
    found = open_features_file(file)
    assert found.features.shape == (found.n_tiles, width)
    assert found.attrs["mpp_source"] == "vendor"
    assert found.attrs["mpp_level0"] == pytest.approx(0.499)
    assert found.n_tiles >= 40

    slide = openslide.OpenSlide(str(path))
    width_px, height_px = slide.dimensions
    coords = found.coords
    assert (coords >= 0).all()
    assert (coords + 224 <= [width_px, height_px]).all()
    assert (coords % 224 == 0).all()  # native resolution: the grid lies on whole tiles
    order = np.lexsort((coords[:, 0], coords[:, 1]))
    assert (order == np.arange(len(order))).all()

    # Embedding OpenSlide's own pixels of some tiles gives the stored rows.
    rows = np.linspace(0, found.n_tiles - 1, 5).astype(int)
    pixels = np.stack(
        [
            np.asarray(slide.read_region((int(x), int(y)), 0, (224, 224)).convert("RGB"))
            for x, y in coords[rows]
        ]
    )
    options = EncoderConfig(name=encoder, weights=real_data / "encoders" if ":" in encoder else None)
    expected = load_encoder(options).encode(pixels)
    np.testing.assert_allclose(np.asarray(found.features[rows], np.float32), expected, rtol=2e-3, atol=2e-3)


def test_a_dicom_that_is_no_slide_and_a_text_file_are_explained(real_data: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, ["inventory", str(real_data / "slides"), "--out", str(tmp_path / "slides.csv"), "--quiet"]
    )
    assert result.exit_code == 1
    lines = {line.split(":")[0]: line for line in result.stdout.splitlines()}
    assert "PROBLEM" in lines["broken"]
    assert "PROBLEM small_dicom.dcm can't be opened" in result.stdout
    assert "0.499" in lines[SLIDE]
