"""Reads damaged copies of a slide in a process of its own: a crash of native code must not end the tests.

``python -m tests.tiling.examine SOUND FOLDER MODE COUNT SEED`` prints a line of JSON for each copy.
"""

from __future__ import annotations

import contextlib
import json
import logging
import resource
import sys
from pathlib import Path

import numpy as np

from tests.tiling.conftest import everything, read_all
from wsi_ncmi.core.errors import SlideError
from wsi_ncmi.slides import Mpp, Slide, open_slide, read_overview
from wsi_ncmi.slides.openslide_reader import OpenSlideSlide
from wsi_ncmi.tiling import GridConfig, TileGrid, TileReader

TILE_PX, TOLERANCE = 100, 2
MEMORY_BYTES = 6 << 30


def tiles(slide: Slide, route: str) -> tuple[np.ndarray, np.ndarray]:
    grid = TileGrid.plan(slide.levels, Mpp(0.25, 0.25, "table"), GridConfig(mpp=0.25, tile_px=TILE_PX))
    return read_all(TileReader(slide, grid, everything(grid), path=route), 64)


def damaged(content: bytes, mode: str, rng: np.random.Generator) -> bytes:
    if mode != "spoil":
        return content[: int(rng.integers(1, len(content)))]
    spoilt = bytearray(content)
    # Directories lie at either end of a file; half of the bytes changed lie there, the others anywhere.
    places = [
        *rng.integers(0, 400, 3),
        *(len(content) - 1 - rng.integers(0, 1500, 6)),
        *rng.integers(0, len(content), 9),
    ]
    for place in rng.permutation(places)[: rng.integers(1, 8)]:
        spoilt[max(0, int(place))] = rng.integers(0, 256)
    return bytes(spoilt)


def examine(path: Path, content: bytes, mode: str, sound: np.ndarray) -> dict[str, object]:
    """What became of one copy; ``wrong`` counts tiles that passed and are not those of the sound slide."""
    outcome: dict[str, object] = {"refused": "", "wrong": 0, "failed": 0, "read": 0}
    try:
        if mode == "cut while open":
            slide: Slide = OpenSlideSlide(path)
            path.write_bytes(content)
        else:
            path.write_bytes(content)
            slide = open_slide(path)
    except SlideError as error:
        outcome["refused"] = str(error)
        return outcome
    with slide:
        for route in ("auto", "reader"):
            with contextlib.suppress(SlideError):  # nothing at all can be read
                read_overview(slide, min(64, slide.width_px), min(64, slide.height_px))
            try:
                pixels, failed = tiles(slide, route)
            except SlideError:  # no grid fits what is left of the header
                continue
            outcome["read"] += len(pixels)
            outcome["failed"] += int(failed.sum())
            if pixels.shape == sound.shape:
                far = np.abs(pixels.astype(np.int16) - sound).max(axis=(1, 2, 3)) > TOLERANCE
                outcome["wrong"] += int((far & ~failed).sum())
            elif mode != "spoil":
                outcome["wrong"] += int((~failed).sum())
            outcome["white"] = outcome.get("white", 0) + int((pixels == 255).all(axis=(1, 2, 3)).sum())
    return outcome


def main() -> None:
    whole, folder, mode, count, seed = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    logging.disable(logging.CRITICAL)
    content = Path(whole).read_bytes()
    rng = np.random.default_rng(int(seed))
    with open_slide(Path(whole)) as slide:
        sound, failed = tiles(slide, "auto")
        assert not failed.any()
    for number in range(int(count)):
        path = Path(folder) / f"{number}{Path(whole).suffix}"
        path.write_bytes(content)
        print(json.dumps(examine(path, damaged(content, mode, rng), mode, sound)), flush=True)
        path.unlink()


if __name__ == "__main__":
    main()
