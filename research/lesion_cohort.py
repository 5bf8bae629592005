"""A CAMELYON-like cohort of bags with real lesions: their number, size and coverage of tiles, from polygons.

    python -m research.lesion_cohort DATA OUT [--dimensions 64] [--tiles 2000 10000] [--test-centres 34]

DATA holds ``labels/camelyon17_official.csv`` (stage and centre of 500 slides), ``lesions/`` (polygons of
CAMELYON16), ``tiles/`` (real tumour and normal tiles), ``centre_tiles/`` (a region of each centre) and
``encoders/``. Writes ``lesions.npz``, which ``wsi-ncmi train --features`` reads, ``parts.csv`` (centres 3 and
4, or others, are the test, whose patients and source tiles are in no other part) and ``slides.csv`` (tumour
tiles of each).

What is drawn: which real lesion a slide has, how many tiles, and which tile's embedding each gets. A tile
that a lesion covers by the share s has s times a tumour's embedding and 1 − s times a normal one's. Every
slide is moved by a quarter of its centre's mean difference (``--shift``): one region a centre differs in
tissue, too, and with the whole of it NCMI answered one class on the test centres. An ITC covers at most a
fifth of one to three tiles, as no polygons of them exist.
"""

import argparse
import csv
import gzip
import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from shapely import (
    Polygon,
    area,
    box,
    clip_by_rect,
    contains_properly,
    difference,
    intersects,
    prepare,
    union_all,
)

from wsi_ncmi.encoders import Encoder, EncoderConfig, load_encoder

_UM_PER_PIXEL = 0.243  # of CAMELYON16's level 0
_TILE_UM = 128
_CENTRE_TILE = 256
_Floats = NDArray[np.float64]


def tumour_shares(
    positive: Sequence[Sequence[Sequence[float]]], holes: Sequence[Sequence[Sequence[float]]]
) -> _Floats:
    """The share that lesions cover of each tile that they touch.

    Args:
        positive: Outlines of lesions, level-0 pixels (x, y).
        holes: Outlines of normal tissue within.

    Returns:
        Shares in (0, 1], (tiles,), in rows from the top.
    """
    side = _TILE_UM / _UM_PER_PIXEL
    lesion, normal = (
        union_all([Polygon(outline).buffer(0) for outline in outlines if len(outline) > 2])
        for outlines in (positive, holes)
    )
    lesion = difference(lesion, normal)
    x0, y0, x1, y1 = np.floor(np.array(lesion.bounds) / side).astype(int).tolist()
    x, y = (grid.ravel() * side for grid in np.meshgrid(np.arange(x0, x1 + 1), np.arange(y0, y1 + 1)))
    tiles = box(x, y, x + side, y + side)
    prepare(lesion)
    tiles = tiles[intersects(lesion, tiles)]
    shares = np.ones(len(tiles))
    crossed = np.flatnonzero(~contains_properly(lesion, tiles))
    shares[crossed] = [area(clip_by_rect(lesion, *tiles[i].bounds)) / side**2 for i in crossed]
    return shares[shares > 0]


def shares_by_stage(folder: Path) -> dict[str, list[_Floats]]:
    """Tumour shares of the tiles of each real slide: ``micro`` and ``macro`` → one array a slide."""
    polygons = json.loads(gzip.decompress((folder / "lesions.json.gz").read_bytes()))
    stages = pd.read_csv(folder / "lesion_summary.csv").set_index("slide")["stage"]
    found: dict[str, list[_Floats]] = {"micro": [], "macro": []}
    for slide, stage in stages.items():
        if stage in found:
            outlines = polygons[slide]
            found[stage].append(tumour_shares(outlines["positive"], outlines.get("negative", [])))
    return found


class TilePool:
    """Embeddings of real tiles to draw from.

    Args:
        embeddings: (tiles, D).
        spread: Share of the class's covariance that is added as noise, so that no two tiles are the same.
    """

    def __init__(self, embeddings: _Floats, spread: float = 0.1) -> None:
        self._embeddings = embeddings
        covariance = np.cov(embeddings.T) * spread
        self._factor = np.linalg.cholesky(covariance + 1e-9 * np.trace(covariance) * np.eye(len(covariance)))

    def draw(self, count: int, generator: np.random.Generator) -> _Floats:
        """Embeddings of ``count`` tiles, (count, D)."""
        chosen = self._embeddings[generator.integers(0, len(self._embeddings), count)]
        noise = generator.standard_normal(chosen.shape) @ self._factor.T
        return np.asarray(chosen + noise, dtype=np.float64)


def draw_slide(
    stage: str,
    tiles: int,
    lesions: dict[str, list[_Floats]],
    normal: TilePool,
    tumour: TilePool,
    generator: np.random.Generator,
) -> tuple[_Floats, int]:
    """The bag of one slide.

    Returns:
        Embeddings (tiles, D), and how many tiles hold tumour.
    """
    if stage == "itc":
        shares = generator.uniform(0.02, 0.2, generator.integers(1, 4))
    elif stage == "negative":
        shares = np.zeros(0)
    else:
        shares = lesions[stage][generator.integers(0, len(lesions[stage]))]
    shares = shares[: tiles // 2]  # a lesion larger than half the slide's tissue is cut
    bag = normal.draw(tiles, generator)
    rows = generator.permutation(tiles)[: len(shares)]
    bag[rows] = shares[:, None] * tumour.draw(len(shares), generator) + (1 - shares[:, None]) * bag[rows]
    return bag, len(shares)


def _embed(encoder: Encoder, tiles: Iterable[Image.Image]) -> _Floats:
    remaining, found = iter(tiles), []
    while batch := list(itertools.islice(remaining, 64)):
        found.append(encoder(batch))
    return np.concatenate(found).astype(np.float64)


def _centre_shifts(encoder: Encoder, folder: Path) -> dict[str, _Floats]:
    """Centre → its mean embedding less the mean of all centres'."""
    means = {}
    for path in sorted(folder.glob("centre_*.jpeg")):
        with Image.open(path) as region:
            steps = range(0, min(region.size) - _CENTRE_TILE + 1, _CENTRE_TILE)
            tiles = [region.crop((x, y, x + _CENTRE_TILE, y + _CENTRE_TILE)) for y in steps for x in steps]
        means[path.name.split("_")[1]] = _embed(encoder, tiles).mean(axis=0)
    middle = np.mean(list(means.values()), axis=0)
    return {centre: mean - middle for centre, mean in means.items()}


def main() -> None:
    """Draws the cohort."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--dimensions", type=int, default=64)
    parser.add_argument("--tiles", type=int, nargs=2, default=(2000, 10000))
    parser.add_argument("--shift", type=float, default=0.25, help="share of the centres' mean differences")
    parser.add_argument("--test-centres", default="34", help="their digits (default: 34)")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    generator = np.random.default_rng(given.seed)
    encoder = load_encoder(EncoderConfig(name="torchvision:squeezenet1_1", weights=given.data / "encoders"))
    table = pd.read_csv(given.data / "tiles" / "tiles.csv", dtype=str)
    table = table[table["label"].isin(["lung_n", "lung_aca"])].reset_index(drop=True)
    embedded = _embed(encoder, (Image.open(given.data / "tiles" / file) for file in table["file"]))
    sources = sorted(set(table["source_id"]))
    tested = set(generator.permutation(sources)[: len(sources) // 3].tolist())
    of_test = table["source_id"].isin(tested).to_numpy()
    middle = embedded[~of_test].mean(axis=0)
    # Principal axes of the training tiles: the bags of 500 slides are 3 GB at the encoder's full width.
    axes = np.linalg.svd(embedded[~of_test] - middle, full_matrices=False)[2][: given.dimensions].T
    scale = ((embedded[~of_test] - middle) @ axes).std(axis=0)
    embedded = (embedded - middle) @ axes / scale
    shifts = {
        c: given.shift * (shift @ axes) / scale
        for c, shift in _centre_shifts(encoder, given.data / "centre_tiles").items()
    }
    pools = {
        (name, test): TilePool(embedded[(table["label"] == name).to_numpy() & (of_test == test)])
        for name in ("lung_n", "lung_aca")
        for test in (False, True)
    }
    lesions = shares_by_stage(given.data / "lesions")
    labels = pd.read_csv(given.data / "labels" / "camelyon17_official.csv", dtype=str)
    labels = labels[labels["patient"].str.endswith(".tif")].sort_values("patient")
    patients = sorted(
        {
            name[:11]
            for name, centre in labels[["patient", "center"]].to_numpy()
            if centre not in given.test_centres
        }
    )
    validating = set(generator.permutation(patients)[: len(patients) // 4].tolist())
    bags, rows = [], []
    for name, stage, centre in labels[["patient", "stage", "center"]].to_numpy():
        test = centre in given.test_centres
        tiles = int(generator.integers(given.tiles[0], given.tiles[1] + 1))
        normal, tumour = pools["lung_n", test], pools["lung_aca", test]
        bag, tumour_tiles = draw_slide(stage, tiles, lesions, normal, tumour, generator)
        bags.append((bag + shifts[centre]).astype(np.float16))
        part = "test" if test else "val" if name[:11] in validating else "train"
        rows.append((name.removesuffix(".tif"), name[:11], stage, centre, part, tiles, tumour_tiles))
    given.out.mkdir(parents=True, exist_ok=True)
    ids, cases, stages = (np.array([row[i] for row in rows]) for i in range(3))
    np.savez(
        given.out / "lesions.npz", features=np.concatenate(bags),
        lengths=np.array([len(bag) for bag in bags]), slide_id=ids, case_id=cases, label=stages,
    )  # fmt: skip
    with (given.out / "parts.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows([("slide_id", "part"), *((row[0], row[4]) for row in rows)])
    with (given.out / "slides.csv").open("w", newline="") as handle:
        columns = ("slide_id", "case_id", "label", "centre", "part", "tiles", "tumour_tiles")
        csv.writer(handle).writerows([columns, *rows])
    print(pd.DataFrame(rows, columns=columns).groupby(["part", "label"])["tumour_tiles"].describe().round(1))


if __name__ == "__main__":
    main()
