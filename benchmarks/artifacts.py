"""Sensitivity and false-positive rate of the artefact filter, per tile, on synthetic slides.

    python benchmarks/artifacts.py [--part development|held-out] [--full] [--out FOLDER] [--json]

Protocol. Slides of five centres are drawn from the seeds below: folds, blur, ink of four colours, black and
grey borders, and slides without any artefact, with and without tumour. Thresholds are chosen on the
development seeds alone. The held-out seeds are opened once, for the figures that the documentation quotes;
who changes a detector afterwards moves them to the development seeds and names fresh ones.

Truth of a tile (256 px at 0.5 µm): the drawn outline covers at least a tenth of it (blur: half of its
tissue). Pen, fold and blur are judged over tiles with at least a quarter of tissue, borders over all tiles;
``all`` asks whether a tile has any of them and any score reaches its limit. Tiles at the limit count too.

Without ``--full`` one slide of every centre and kind is drawn from the first seed (about 35 s), enough to see
that nothing broke; ``--full`` takes every slide of every seed of the part, about 3 min a seed. With ``--out``
the scores of each slide are kept, and a second call resumes where the first ended; scores of another state of
the detectors are not taken up. ``--json`` prints one object as the last line.
"""

import argparse
import functools
import hashlib
import json
import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import shapely
from artifact_scores import KINDS, Tiles, interval, recall_and_precision
from numpy.typing import NDArray

import wsi_ncmi.tissue
from wsi_ncmi.core.files import atomic_path
from wsi_ncmi.slides import open_slide, resolve_mpp
from wsi_ncmi.synthesis import CENTRES, SlidePlan, make_slide
from wsi_ncmi.tiling import GridConfig, TileGrid, TileReader, TileSelection
from wsi_ncmi.tissue import ArtifactConfig, TissueConfig, analyse_tissue, segment_tissue, tile_blur

# No longer held out: 6401 to 6403 (first second look at folds), 7501 to 7503 (one at 4 µm, not taken), 8601
# to 8603 (version 4), 9701 (version 5, in part).
SEEDS = {"development": (5301, 5302), "held-out": (9801, 9802, 9803)}
# What is drawn for each centre and seed: artefact and class. The classes are about CAMELYON-17's shares.
DRAWN = (
    ("fold", "negative"), ("blur", "negative"), ("pen:blue", "negative"), ("border:grey", "negative"),
    ("", "negative"), ("fold", "macro"), ("blur", "macro"), ("pen:green", "macro"), ("border:black", "macro"),
    ("", "macro"), ("fold", "negative"), ("fold", "negative"), ("fold", "micro"), ("blur", "negative"),
    ("blur", "micro"), ("pen:red", "negative"), ("pen:black", "micro"),
)  # fmt: skip
SMALL = 4  # the first of them, one of each kind
GRID = GridConfig(mpp=0.5, tile_px=256)
LEAST_TISSUE = 0.25


def plans(part: str, full: bool) -> Iterator[SlidePlan]:
    """The slides of a part; small: some of its first seed."""
    for seed in SEEDS[part] if full else SEEDS[part][:1]:
        for centre in range(len(CENTRES)):
            for index, (artefact, label) in enumerate(DRAWN if full else DRAWN[:SMALL]):
                name = f"{seed}_{centre}_{index:02d}"
                yield SlidePlan(name, centre, index, centre, label, artefact, True, seed)


def truths(path: Path, boxes: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Share of each box under each kind (blur: of its tissue), float64 (N, 4), and of tissue, (N,)."""
    features = json.loads(path.read_text())["features"]
    tiles = shapely.box(*boxes.T)
    areas = {}
    for kind in (*KINDS, "tissue"):
        of_kind = [f for f in features if f["properties"]["classification"]["name"] == kind]
        areas[kind] = shapely.union_all([shapely.geometry.shape(f["geometry"]) for f in of_kind])
    size = shapely.area(tiles)
    tissue = shapely.area(shapely.intersection(tiles, areas["tissue"])) / size
    shares = np.zeros((len(boxes), len(KINDS)))
    for column, kind in enumerate(KINDS):
        area = areas[kind].intersection(areas["tissue"]) if kind == "blur" else areas[kind]
        if not area.is_empty:
            shares[:, column] = shapely.area(shapely.intersection(tiles, area)) / size
    shares[:, KINDS.index("blur")] /= np.maximum(tissue, 1e-9)
    return shares, tissue


def score(plan: SlidePlan, folder: Path) -> dict[str, NDArray[np.float64]]:
    """Draws a slide, has its artefacts found, and sets both side by side for every tile."""
    path = folder / plan.file_name
    if not path.is_file():
        make_slide(plan, folder, folder)
    with open_slide(path) as slide:
        mpp = resolve_mpp(slide)
        began = time.process_time()
        segment_tissue(slide, mpp, TissueConfig())
        middle = time.process_time()
        found = analyse_tissue(slide, mpp, TissueConfig(), ArtifactConfig())
        ended = time.process_time()
        grid = TileGrid.plan(slide.levels, mpp, GRID)
        places = np.arange(len(grid), dtype=np.int64)
        boxes = grid.boxes(places)
        shares, tissue = truths(folder / f"{plan.slide_id}.geojson", boxes)
        scores = np.zeros_like(shares)
        scores[:, [KINDS.index(kind) for kind in found.artifacts.kinds]] = found.artifacts.scores_in(boxes)
        places = np.flatnonzero(tissue >= LEAST_TISSUE).astype(np.int64)
        selection = TileSelection(places, grid.coords(places), np.ones(len(places), np.float16))
        with TileReader(slide, grid, selection) as reader:
            for batch in reader.batches(32):
                scores[places[batch.rows], KINDS.index("blur")] = tile_blur(batch.pixels, grid.target_mpp)
    return {
        "shares": shares, "tissue": tissue, "scores": scores,
        "seconds": np.array([middle - began, ended - middle]),
    }  # fmt: skip


def kept(plan: SlidePlan, out: Path, keep_slides: bool) -> dict[str, NDArray[np.float64]]:
    """The scores of a slide, from an earlier call of the same state or made now."""
    path = out / f"scores-{state()}" / f"{plan.slide_id}.npz"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        slides = out / "slides"
        slides.mkdir(exist_ok=True)
        result = score(plan, slides)
        if not keep_slides:
            (slides / plan.file_name).unlink()
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **result)
    with np.load(path) as stored:
        return dict(stored)


@functools.cache
def state() -> str:
    """Names the state of the code that finds artefacts."""
    digest = hashlib.sha256()
    for path in sorted(Path(wsi_ncmi.tissue.__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def plain(value: object) -> object:
    """Four digits of a number; None where there was nothing to judge."""
    return (round(value, 4) if math.isfinite(value) else None) if isinstance(value, float) else value


def main() -> None:
    """Draws, scores and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=sorted(SEEDS), default="development", help="which seeds")
    parser.add_argument("--full", action="store_true", help="every slide of every seed of the part")
    parser.add_argument("--out", type=Path, help="folder that keeps the scores; default: a temporary one")
    parser.add_argument("--keep-slides", action="store_true", help="keep the synthetic slides in it as well")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    wanted = list(plans(arguments.part, arguments.full))
    with tempfile.TemporaryDirectory() as temporary:
        out = arguments.out or Path(temporary)
        results = []
        for number, plan in enumerate(wanted, 1):
            results.append(kept(plan, out, arguments.keep_slides))
            print(f"\r{number}/{len(wanted)} slides", end="", flush=True)
    print()
    tiles = Tiles.of(results, [CENTRES[plan.centre].name for plan in wanted], LEAST_TISSUE)
    values: dict[str, object] = {"part": arguments.part, "full": arguments.full, "slides": len(wanted)}
    for kind in (*KINDS, "all"):
        counts = tiles.counts(kind)
        recall, precision = recall_and_precision(counts.sum(axis=0))
        print(
            f"{kind:7s} {counts[:, 0].sum():5.0f} tiles with it: "
            f"recall {recall:.3f} ({interval(counts, 0)}), precision {precision:.3f} ({interval(counts, 1)})"
        )
        values |= {
            f"{kind}_tiles": int(counts[:, 0].sum()),
            f"{kind}_recall": recall,
            f"{kind}_precision": precision,
        }
        for centre in sorted(set(tiles.centres)):
            chosen = np.array([name == centre for name in tiles.centres])
            pair = recall_and_precision(counts[chosen].sum(axis=0))
            print(
                f"        {centre}: {counts[chosen, 0].sum():4.0f} tiles, "
                f"recall {pair[0]:.3f}, precision {pair[1]:.3f}"
            )
            values |= {f"{kind}_recall_{centre}": pair[0], f"{kind}_precision_{centre}": pair[1]}
    seconds = np.sum([result["seconds"] for result in results], axis=0)
    print(f"tissue {seconds[0]:.2f} s, tissue and artefacts {seconds[1]:.2f} s of processor time")
    values |= {"tissue_s": round(seconds[0], 3), "tissue_and_artifacts_s": round(seconds[1], 3)}
    if arguments.json:
        print(json.dumps({key: plain(value) for key, value in values.items()}))


if __name__ == "__main__":
    main()
