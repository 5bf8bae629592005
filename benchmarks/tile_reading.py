"""Speed of reading tiles: against OpenSlide, and against bare decoding of the same stored tiles.

    python benchmarks/tile_reading.py [--seconds 40] [--json]

A synthetic slide (8,192² px, JPEG q80 4:2:0, 256 px tiles) is written to a temporary folder, and a small one
in JPEG 2000. Each comparison is a series of rounds in which both sides read the same tiles one after the
other, in alternating order, on one thread; a round gives one ratio and the median counts. Times are processor
time of that thread, so that other work on the machine hardly counts. Only ``scaling_2_cores`` is a matter of
wall time: it needs two idle cores, and the load is printed with it. What the machine itself allows is
measured in the same rounds: ``decode_scaling_2_cores`` is bare decoding of the same tiles by two threads, and
``scaling_of_decode`` the median over rounds of the one over the other. ``--json`` prints one object as the
last line.
"""

import argparse
import gc
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import imagecodecs
import numpy as np
import openslide
import simplejpeg
import tifffile
from numpy.typing import NDArray
from PIL import Image

from wsi_ncmi.slides import Mpp, Slide, open_slide
from wsi_ncmi.tiling import GridConfig, TileGrid, TileReader, TileSelection

SIDE_PX = 8192
TILE_PX = 256
ROUNDS = 15
# A batch of 64 tiles is 12 MB of fresh memory each time, which costs 7 %; extraction takes 16 by default.
BATCH = 32
MPP = Mpp(0.25, 0.25, "benchmark")


@dataclass(frozen=True)
class Case:
    """Tiles of a grid, as many as are read in one round."""

    grid: TileGrid
    selection: TileSelection


def write_slide(path: Path, side_px: int = SIDE_PX) -> None:
    """A slide with the texture of tissue, and stored tiles of the size that scanners' have at quality 80."""
    rng = np.random.default_rng(0)

    def tile() -> bytes:
        return bytes(
            imagecodecs.jpeg8_encode(
                texture(rng), level=80, colorspace="rgb", outcolorspace="ycbcr", subsampling="420"
            )
        )

    different = [tile() for _ in range(64)]
    count = (side_px // TILE_PX) ** 2
    order = rng.integers(0, len(different), count)
    with tifffile.TiffWriter(path) as file:
        file.write(
            (different[i] for i in order), shape=(side_px, side_px, 3), dtype=np.uint8,
            tile=(TILE_PX, TILE_PX), compression=7, photometric="ycbcr", subsampling=(2, 2), metadata=None,
            description="Aperio Image Library v1\n|AppMag = 40|MPP = 0.25",
        )  # fmt: skip


def texture(rng: np.random.Generator) -> NDArray[np.uint8]:
    """One tile that looks like tissue to a compressor."""
    pixels = np.full((TILE_PX, TILE_PX), 0.0, np.float32)
    for step, weight in ((64, 60.0), (16, 45.0), (4, 22.0)):  # compartments, nuclei, chromatin
        grains = rng.normal(0, 1, (TILE_PX // step + 3, TILE_PX // step + 3)).astype(np.float32)
        layer = Image.fromarray(grains).resize((TILE_PX, TILE_PX), Image.Resampling.BICUBIC)
        pixels += weight * np.asarray(layer)
    noise = rng.normal(0, 3, (TILE_PX, TILE_PX, 3))
    colour = np.array([195.0, 140.0, 190.0]) + pixels[:, :, None] * np.array([0.8, 1.0, 0.55]) + noise
    pixels_rgb: NDArray[np.uint8] = np.clip(colour, 0, 255).astype(np.uint8)
    return pixels_rgb


def write_jpeg2000_slide(path: Path, side_px: int = 2048) -> None:
    """A slide as Aperio's scanners store it in JPEG 2000 (compression 33005), at the usual 30 dB or so."""
    rng = np.random.default_rng(1)
    streams = [
        bytes(
            imagecodecs.jpeg2k_encode(texture(rng), codecformat="j2k", level=38, reversible=False, mct=False)
        )
        for _ in range(16)
    ]
    count = (side_px // TILE_PX) ** 2
    with tifffile.TiffWriter(path) as file:
        file.write(
            (streams[i % len(streams)] for i in range(count)), shape=(side_px, side_px, 3), dtype=np.uint8,
            tile=(TILE_PX, TILE_PX), compression=33005, photometric="rgb", metadata=None,
            description="Aperio Image Library v1\n|AppMag = 40|MPP = 0.25",
        )  # fmt: skip


def plan(
    slide: Slide, target_mpp: float, n_tiles: int, *, tile_px: int = TILE_PX, overlap_px: int = 0
) -> Case:
    """Whole rows from the middle of the slide, about ``n_tiles`` tiles."""
    options = GridConfig(mpp=target_mpp, tile_px=tile_px, overlap_px=overlap_px)
    grid = TileGrid.plan(slide.levels, MPP, options)
    rows = max(2, round(n_tiles / grid.n_columns))
    first = (grid.n_rows - rows) // 2
    indices = np.arange(first * grid.n_columns, (first + rows) * grid.n_columns, dtype=np.int64)
    return Case(grid, TileSelection(indices, grid.coords(indices), np.ones(len(indices), np.float16)))


def ours(
    slide: Slide, case: Case, threads: int = 1, clock: Callable[[], int] = time.thread_time_ns
) -> Callable[[], int]:
    """Reads the case through the package; what is done once a slide (directory, probes) is not counted."""

    def read() -> int:
        with TileReader(slide, case.grid, case.selection, threads=threads) as reader:
            assert reader.path == "direct", reader.reason
            started = clock()
            for batch in reader.batches(BATCH):
                assert not batch.failed.any()
            return clock() - started

    return read


def with_openslide(path: Path, case: Case) -> Callable[[], int]:
    """The usual loop: ``read_region``, conversion to RGB and, where scales differ, Pillow's box resize."""
    boxes = case.grid.level_boxes(case.selection.indices)
    size = case.grid.tile_px

    def read() -> int:
        with openslide.OpenSlide(path) as slide:
            # A fresh handle each time: its cache of decoded tiles serves this round only, as ours does.
            started = time.thread_time_ns()
            for left, top, right, bottom in boxes.round().astype(int).tolist():
                tile = slide.read_region((left, top), 0, (right - left, bottom - top)).convert("RGB")
                if tile.width != size:
                    tile = tile.resize((size, size), Image.Resampling.BOX)
                np.asarray(tile)
            return time.thread_time_ns() - started

    return read


def bare_decoding(path: Path, case: Case) -> Callable[[], int]:
    """Decodes the very stored tiles of an aligned case, already in memory, with the same decoder settings."""
    streams = stored_streams(path, case)
    out = np.empty((BATCH, TILE_PX, TILE_PX, 3), np.uint8)

    def read() -> int:
        started = time.thread_time_ns()
        decode(streams, out)
        return time.thread_time_ns() - started

    return read


def bare_decoding_in_threads(path: Path, case: Case, count: int) -> Callable[[], int]:
    """The same in wall time, by threads that share nothing but the interpreter: each has its own part."""
    streams = stored_streams(path, case)
    buffers = [np.empty((BATCH // count, TILE_PX, TILE_PX, 3), np.uint8) for _ in range(count)]

    def read() -> int:
        started = time.perf_counter_ns()
        threads = [
            threading.Thread(target=decode, args=(streams[number::count], out))
            for number, out in enumerate(buffers)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter_ns() - started

    return read


def stored_streams(path: Path, case: Case) -> list[bytes]:
    """The stored tiles of an aligned case."""
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        across = page.imagewidth // TILE_PX
        data = path.read_bytes()
        streams = []
        for x, y in (case.selection.coords // TILE_PX).tolist():
            start = page.dataoffsets[y * across + x]
            streams.append(data[start : start + page.databytecounts[y * across + x]])
    return streams


def decode(streams: list[bytes], out: NDArray[np.uint8]) -> None:
    """Decodes tiles into the places of a buffer, over and over."""
    for place, stream in enumerate(streams):
        simplejpeg.decode_jpeg(stream, "RGB", fastdct=False, fastupsample=False, buffer=out[place % len(out)])


@dataclass(frozen=True)
class Result:
    """Of one comparison: median of the rounds' ratios, their quartiles, and the rates of both sides."""

    ratio: float
    low: float
    high: float
    rate: float
    other_rate: float
    rounds: int


def compare(first: Callable[[], int], other: Callable[[], int], n_tiles: int, seconds: float) -> Result:
    """Runs both sides in pairs, in alternating order, until the time is up or ``ROUNDS`` pairs are done."""
    first(), other()  # page cache, imports, decoder tables
    ratios: list[float] = []
    ours_ns: list[int] = []
    other_ns: list[int] = []
    started = time.monotonic()
    while len(ratios) < ROUNDS and (len(ratios) < 3 or time.monotonic() - started < seconds):
        gc.collect()
        if len(ratios) % 2:
            b, a = other(), first()
        else:
            a, b = first(), other()
        ratios.append(b / a)
        ours_ns.append(a)
        other_ns.append(b)
    return summary(ratios, ours_ns, other_ns, n_tiles)


def summary(ratios: list[float], ours_ns: list[int], other_ns: list[int], n_tiles: int) -> Result:
    """Median and quartiles of the rounds' ratios, median rates of both sides."""
    low, middle, high = statistics.quantiles(ratios, n=4)
    rate, other_rate = (1e9 * n_tiles / statistics.median(values) for values in (ours_ns, other_ns))
    return Result(middle, low, high, rate, other_rate, len(ratios))


def compare_scaling(path: Path, slide: Slide, seconds: float) -> dict[str, Result]:
    """Two threads against one: the package, bare decoding, and the one ratio over the other, by rounds."""
    case = plan(slide, 0.25, 1024)
    wall = time.perf_counter_ns
    sides = [ours(slide, case, 2, wall), ours(slide, case, 1, wall)]
    sides += [bare_decoding_in_threads(path, case, count) for count in (2, 1)]
    for side in sides:
        side()
    rounds: list[list[int]] = []
    started = time.monotonic()
    while len(rounds) < ROUNDS and (len(rounds) < 3 or time.monotonic() - started < seconds):
        gc.collect()
        order = [0, 1, 2, 3] if len(rounds) % 2 else [3, 2, 1, 0]
        taken = {number: sides[number]() for number in order}
        rounds.append([taken[number] for number in range(4)])
    two, one, bare_two, bare_one = (list(column) for column in zip(*rounds, strict=True))
    count = len(case.selection)
    ours_ratio, bare_ratio = np.divide(one, two), np.divide(bare_one, bare_two)
    return {
        "scaling_2_cores": summary(ours_ratio.tolist(), two, one, count),
        "decode_scaling_2_cores": summary(bare_ratio.tolist(), bare_two, bare_one, count),
        "scaling_of_decode": summary((ours_ratio / bare_ratio).tolist(), two, bare_two, count),
    }


def measure(path: Path, slide: Slide, path2000: Path, slide2000: Slide, seconds: float) -> dict[str, Result]:
    """All comparisons, each in about so many seconds."""
    aligned = plan(slide, 0.25, 256)
    shifted = plan(slide, 0.25, 256, tile_px=224, overlap_px=16)
    half = plan(slide, 0.5, 64)
    scaled = replace(half, grid=replace(half.grid, scaled_decoding=True))
    few = plan(slide2000, 0.25, 32)
    results: dict[str, Result] = {}
    for name, first, other, case in (
        ("vs_openslide_aligned", ours(slide, aligned), with_openslide(path, aligned), aligned),
        ("vs_decode_aligned", ours(slide, aligned), bare_decoding(path, aligned), aligned),
        ("vs_openslide_unaligned", ours(slide, shifted), with_openslide(path, shifted), shifted),
        ("vs_openslide_resampled", ours(slide, half), with_openslide(path, half), half),
        ("vs_openslide_jpeg2000", ours(slide2000, few), with_openslide(path2000, few), few),
        ("scaled_vs_exact_decoding", ours(slide, scaled), ours(slide, half), half),
    ):
        results[name] = compare(first, other, len(case.selection), seconds)
    results |= compare_scaling(path, slide, 2 * seconds)
    for name, result in results.items():
        print(
            f"{name:24s} {result.ratio:5.2f}  (quartiles {result.low:.2f} to {result.high:.2f}, "
            f"{result.rounds} rounds; {result.rate:,.0f} against {result.other_rate:,.0f} tiles/s)",
            flush=True,
        )
    return results


def main() -> None:
    """Measures everything and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=40.0, help="time for all comparisons together")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path, path2000 = Path(folder) / "slide.svs", Path(folder) / "jpeg2000.svs"
        write_slide(path)
        write_jpeg2000_slide(path2000)
        with open_slide(path) as slide, open_slide(path2000) as slide2000:
            results = measure(path, slide, path2000, slide2000, arguments.seconds / 8)
    load = os.getloadavg()[0]
    print(f"load of the last minute: {load:.1f} on {len(os.sched_getaffinity(0))} cores")
    if arguments.json:
        values = {name: round(result.ratio, 3) for name, result in results.items()}
        rates = {f"{name}_tiles_per_s": round(result.rate) for name, result in results.items()}
        print(json.dumps(values | rates | {"load_1_min": round(load, 2)}))


if __name__ == "__main__":
    main()
