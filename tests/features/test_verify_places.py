"""``verify`` refuses coordinates that are no tiles of the slide, even in a file that is sealed and whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wsi_ncmi.features import verify_file, write_features
from wsi_ncmi.features.schema import FEATURES_SCHEMA, Identity
from wsi_ncmi.features.writer import SlideAttributes

IDENTITY = Identity(
    schema=FEATURES_SCHEMA, slide_fingerprint="f", mpp_level0_x=0.5, mpp_level0_y=0.5, mpp_target=0.5, tile_px=100,
    overlap_px=0, min_tissue=0.25, tissue_method="hed", tissue_parameters="{}", artifacts_rule="keep",
    encoder="descriptor", encoder_weights_sha256="none", transform="t", precision="fp32", backend="numpy",
)  # fmt: skip


def write(path: Path, coords: list[list[int]]) -> Path:
    count = len(coords)
    write_features(
        path,
        features=np.ones((count, 3), np.float32),
        coords=np.array(coords, np.int64).reshape(-1, 2),
        tissue_fraction=np.ones(count, np.float16),
        identity=IDENTITY,
        slide=SlideAttributes(
            slide_id=path.stem, width_px=300, height_px=250, reader="openslide", mpp_source="vendor",
            read_level=0, tile_size_level0=(100.0, 100.0),
        ),
    )  # fmt: skip
    return path


@pytest.mark.parametrize("coords", [[], [[0, 0]], [[0, 0], [200, 0], [100, 100], [200, 150]]])
def test_tiles_of_the_slide_pass(tmp_path: Path, coords: list[list[int]]) -> None:
    assert verify_file(write(tmp_path / "a.h5", coords)).ok


@pytest.mark.parametrize(
    ("coords", "words"),
    [
        ([[-1, 0]], "outside"),
        ([[201, 0]], "outside"),
        ([[0, 151]], "outside"),
        ([[0, 0], [0, 0]], "twice"),
        ([[100, 0], [0, 0]], "raster order"),
        ([[0, 100], [0, 0]], "raster order"),
    ],
)
def test_misplaced_tiles_are_found(tmp_path: Path, coords: list[list[int]], words: str) -> None:
    verdict = verify_file(write(tmp_path / "a.h5", coords))
    assert not verdict.ok
    assert words in verdict.problem
