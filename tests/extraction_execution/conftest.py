"""A folder of small slides: sound ones, and one that never ends or that kills its reader."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from wsi_ncmi.extraction.config import ExtractConfig
from wsi_ncmi.extraction.task import SlideTask
from wsi_ncmi.slides import take_inventory
from wsi_ncmi.tiling import GridConfig

N_SLIDES = 4


@pytest.fixture(scope="session")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    for number in range(N_SLIDES):
        rng = np.random.default_rng(number)
        pixels = np.full((512, 640, 3), 243, np.uint8)
        noise = rng.normal(0, 18, (320, 320, 3))
        pixels[64:384, 128:448] = np.clip(np.array([190, 110, 165]) + noise, 0, 255).astype(np.uint8)
        with tifffile.TiffWriter(folder / f"slide_{number}.tif") as writer:
            writer.write(
                pixels, tile=(256, 256), photometric="rgb", compression="deflate",
                resolution=(20_000, 20_000), resolutionunit="CENTIMETER", metadata=None,
            )  # fmt: skip
    return folder


Tasks = Callable[..., list[SlideTask]]


@pytest.fixture
def tasks(slides: Path, tmp_path: Path) -> Tasks:
    def make(out: Path = tmp_path / "out", mpp: float = 0.5) -> list[SlideTask]:
        grid = GridConfig(mpp=mpp, tile_px=64)
        config = ExtractConfig(slides=slides, out=out, grid=grid)
        return [SlideTask(record, config) for record in take_inventory(slides)]

    return make
