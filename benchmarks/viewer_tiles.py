"""Tiles for the browser: ours against OpenSlide's own Deep Zoom generator, to the encoded JPEG.

    python benchmarks/viewer_tiles.py --json [SLIDE]

Both serve the same tiles of the same levels in the same order, from a cold start of their own objects, on
one thread: every tile of the coarse levels and a walk over the finest, as a person zooms and pans. The tiles
of OpenSlide are saved as its example server does (Pillow, quality 75). Paired repeats; the ratio is that of
the medians.
Without SLIDE it draws one of 8,192² px.
"""

import argparse
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openslide
from openslide.deepzoom import DeepZoomGenerator
from PIL import Image

from wsi_ncmi.reporting.viewer import DeepZoom
from wsi_ncmi.slides import open_slide
from wsi_ncmi.synthesis import write_pyramid

SIDE = 8192
SIZES = ((254, "the generator's own size"), (512, "the viewer's size"))


def drawn(folder: Path) -> Path:
    """A slide of its own."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(60, 230, (SIDE // 4, SIDE // 4, 3), np.uint8))
    pixels = np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    path = folder / "slide.svs"
    write_pyramid(path, pixels, 0.25, quality=80)
    return path


def visits(zoom: DeepZoom) -> list[tuple[int, int, int]]:
    """All tiles of coarse levels, a block of 8 × 8 tiles (or what there is) of the four finest."""
    found = []
    for level in range(8, zoom.level_count):
        width, height = zoom.size(level)
        columns, rows = -(-width // zoom.tile_px), -(-height // zoom.tile_px)
        left, top = max(0, columns // 2 - 4), max(0, rows // 2 - 4)
        found += [
            (level, column, row)
            for row in range(top, min(rows, top + 8))
            for column in range(left, min(columns, left + 8))
        ]
    return found


def ours(path: Path, size: int, tiles: list[tuple[int, int, int]]) -> Callable[[], None]:
    """Our way."""

    def run() -> None:
        with open_slide(path) as slide:
            zoom = DeepZoom(slide, size)
            for tile in tiles:
                zoom.jpeg(*tile)
            zoom.close()

    return run


def theirs(path: Path, size: int, tiles: list[tuple[int, int, int]]) -> Callable[[], None]:
    """OpenSlide's way."""

    def run() -> None:
        with openslide.OpenSlide(path) as slide:
            generator = DeepZoomGenerator(slide, tile_size=size, overlap=0, limit_bounds=False)
            for level, column, row in tiles:
                generator.get_tile(level, (column, row)).save(io.BytesIO(), "jpeg", quality=75)

    return run


def seconds(run: Callable[[], None]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("slide", nargs="?", type=Path)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.slide or drawn(Path(folder))
        for size, words in SIZES:
            with open_slide(path) as slide:
                tiles = visits(DeepZoom(slide, size))
            pair = ours(path, size, tiles), theirs(path, size, tiles)
            times = [(seconds(pair[0]), seconds(pair[1])) for _ in range(arguments.repeats)]
            a, b = (statistics.median(column) for column in zip(*times, strict=True))
            ratios = [theirs_ / ours_ for ours_, theirs_ in times]
            result[str(size)] = {
                "what": words, "tiles": len(tiles), "tiles_per_s": round(len(tiles) / a, 1),
                "openslide_tiles_per_s": round(len(tiles) / b, 1), "ratio": round(b / a, 2),
                "ratio_low": round(min(ratios), 2), "ratio_high": round(max(ratios), 2),
            }  # fmt: skip
            if not arguments.json:
                print(size, result[str(size)])
    print(json.dumps(result))


if __name__ == "__main__":
    main()
