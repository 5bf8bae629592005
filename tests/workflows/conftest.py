"""Small drawn slides, and a run and a bundle of models for their features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.prediction.models import export, make_bundle, write_run
from wsi_ncmi.synthesis import write_pyramid

WIDTH = 229  # of the descriptor
GRID = {
    "tile_px": 64,
    "min_tissue": 0.25,
    "tissue_method": "hed",
    "artifacts_rule": "keep",
    "decoding": "exact",
}


def tissue(seed: int, width: int = 640, height: int = 512) -> np.ndarray:
    """A violet blob with texture on bright glass."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    inside = ((x - width / 2) / (width * 0.4)) ** 2 + ((y - height / 2) / (height * 0.4)) ** 2 < 1
    noise = np.asarray(
        Image.fromarray(rng.integers(0, 90, (height // 4, width // 4), np.uint8)).resize((width, height))
    )
    pixels = np.full((height, width, 3), 245, np.uint8)
    for channel, base in enumerate((130, 60, 140)):
        pixels[..., channel][inside] = (base + noise)[inside].astype(np.uint8)
    return pixels


@pytest.fixture(scope="session")
def small_slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two slides with tissue and one without."""
    folder = tmp_path_factory.mktemp("small") / "slides"
    folder.mkdir()
    for number in range(2):
        write_pyramid(folder / f"s{number}.svs", tissue(number), 0.5)
    write_pyramid(folder / "empty.svs", np.full((512, 640, 3), 245, np.uint8), 0.5)
    return folder


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two folds on descriptor features of 64 px tiles."""
    return write_run(
        tmp_path_factory.mktemp("run") / "ncmi", width=WIDTH, classes=("negative", "tumour"), **GRID
    )


@pytest.fixture(scope="session")
def small_bundle(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a bundle without reference."""
    bundle = make_bundle(small_run, reference=False)
    return export(bundle, small_run, tmp_path_factory.mktemp("bundle") / "model.zip")
