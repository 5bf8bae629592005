"""Small real TIFF slides with tissue, made once, and the tasks on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from wsi_ncmi.encoders import Encoder, EncoderConfig, load_encoder
from wsi_ncmi.extraction.config import ExtractConfig
from wsi_ncmi.extraction.task import SlideTask
from wsi_ncmi.slides import take_inventory
from wsi_ncmi.tiling import GridConfig

GRID = GridConfig(mpp=0.5, tile_px=64)


def write_slide(path: Path, seed: int, tissue_px: int = 384) -> None:
    """A tiled TIFF of 1024 × 768 px at 0.5 µm: glass with a square of pink, textured tissue."""
    rng = np.random.default_rng(seed)
    pixels = np.full((768, 1024, 3), 243, np.uint8)
    if tissue_px:
        noise = rng.normal(0, 18, (tissue_px, tissue_px, 3))
        pixels[128 : 128 + tissue_px, 192 : 192 + tissue_px] = np.clip(
            np.array([190, 110, 165]) + noise, 0, 255
        ).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path) as writer:
        writer.write(
            pixels, tile=(256, 256), photometric="rgb", compression="deflate",
            resolution=(20_000, 20_000), resolutionunit="CENTIMETER", metadata=None,
        )  # fmt: skip


@pytest.fixture(scope="session")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    for number in range(3):
        write_slide(folder / f"slide_{number}.tif", number)
    write_slide(folder / "empty.tif", 9, tissue_px=0)
    return folder


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    return load_encoder(EncoderConfig())


def with_config(task: SlideTask, **changes: Any) -> SlideTask:
    """The task with other settings of its configuration."""
    return replace(task, config=replace(task.config, **changes))


Tasks = Callable[..., list[SlideTask]]


@pytest.fixture
def tasks(slides: Path, tmp_path: Path) -> Tasks:
    def make(
        root: Path = slides, out: Path = tmp_path / "out", grid: GridConfig = GRID, overwrite: bool = False
    ) -> list[SlideTask]:
        config = ExtractConfig(slides=root, out=out, grid=grid, overwrite=overwrite)
        return [SlideTask(record, config) for record in take_inventory(root)]

    return make
