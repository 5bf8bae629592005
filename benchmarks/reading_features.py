"""Speed of reading bags: one large feature file against a bare numpy read, and the opening of many.

Both sides read the same file from the page cache into fresh memory, in turns, so that what else the machine
does meets both alike. ``vs_numpy`` is the median of the ratios of the pairs.

    python benchmarks/reading_features.py --json
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from wsi_ncmi.cohorts import open_bag_source
from wsi_ncmi.features import SlideAttributes, open_features_file, write_features
from wsi_ncmi.features.interchange import PackedColumns, write_packed
from wsi_ncmi.features.schema import FEATURES_SCHEMA, Identity

IDENTITY = Identity(
    schema=FEATURES_SCHEMA,
    slide_fingerprint="synthetic", mpp_level0_x=0.25, mpp_level0_y=0.25, mpp_target=0.5,
    tile_px=256, overlap_px=0, min_tissue=0.25, tissue_method="none", tissue_parameters="{}",
    artifacts_rule="keep", encoder="random", encoder_weights_sha256="", transform="", precision="fp32",
    backend="none",
)  # fmt: skip


def write(folder: Path, slide_id: str, features: np.ndarray) -> Path:
    """A feature file of random numbers, tiles in rows of 200."""
    n = len(features)
    index = np.arange(n, dtype=np.int64)
    coords = np.stack([index % 200, index // 200], axis=1) * 512
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{slide_id}.h5"
    write_features(
        path, features=features, coords=coords, tissue_fraction=np.ones(n, np.float16), identity=IDENTITY,
        slide=SlideAttributes(slide_id, 102_400, 102_400, "none", "none", 0, (512.0, 512.0)),
    )  # fmt: skip
    return path


def seconds(action: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def paired(ours: Callable[[], object], bare: Callable[[], object], rounds: int) -> tuple[float, float, float]:
    """Median ratio of paired runs, and the least time of each side."""
    ours(), bare()
    pairs = []
    for number in range(rounds):
        first, second = (ours, bare) if number % 2 else (bare, ours)
        one, two = seconds(first), seconds(second)
        pairs.append((one, two) if number % 2 else (two, one))
    a, b = np.array(pairs).T
    return float(np.median(a / b)), float(a.min()), float(b.min())


def measure(folder: Path, tiles: int, width: int, rounds: int, many: int) -> dict[str, float]:
    """All figures."""
    rng = np.random.default_rng(0)
    large = rng.standard_normal((tiles, width), np.float32).astype(np.float16)
    path = write(folder / "large", "slide", large)
    offset, count = open_features_file(path).offset, tiles * width
    source = open_bag_source(folder / "large")
    assert np.array_equal(source.load("slide"), large), "the bag is not what was written"

    def bare() -> np.ndarray:
        return np.fromfile(path, "<f2", count, offset=offset or 0)

    vs_numpy, ours_s, numpy_s = paired(lambda: source.load("slide"), bare, rounds)
    # A subset of rows: mapped, so that only their pages are touched.
    rows = np.sort(rng.choice(tiles, min(500, tiles), replace=False))
    subset_s = min(seconds(lambda: open_features_file(path).rows(rows)) for _ in range(5))

    write_packed(folder / "bags.npz", PackedColumns(["slide"], [tiles]), width, lambda _: large)
    packed = open_bag_source(folder / "bags.npz")
    packed_vs_numpy, _, _ = paired(lambda: packed.load("slide"), bare, max(3, rounds // 3))

    small = large[:50]
    for number in range(many):
        write(folder / "many", f"slide_{number:04d}", small)
    open_s = min(seconds(lambda: open_bag_source(folder / "many")) for _ in range(2))
    opened = open_bag_source(folder / "many")
    load_s = min(seconds(lambda: [opened.load(s) for s in opened.slide_ids]) for _ in range(2))
    return {
        "tiles": tiles,
        "width": width,
        "vs_numpy": vs_numpy,
        "ours_ms": ours_s * 1e3,
        "numpy_ms": numpy_s * 1e3,
        "packed_vs_numpy": packed_vs_numpy,
        "subset_500_rows_ms": subset_s * 1e3,
        "open_ms_a_file": open_s / many * 1e3,
        "load_small_ms_a_file": load_s / many * 1e3,
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiles", type=int, default=15_000)
    parser.add_argument("--width", type=int, default=1_536)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--many", type=int, default=500, help="files of 50 tiles that are opened together")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), options.tiles, options.width, options.rounds, options.many)
    if options.json:
        print(json.dumps({name: round(value, 4) for name, value in figures.items()}))
    else:
        for name, value in figures.items():
            print(f"{name:24s} {value:10.3f}", file=sys.stdout)


if __name__ == "__main__":
    main()
