"""What all programs work on, drawn anew from a seed: slides, tissue with its truth, weights, bags."""

import csv
import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import simplejpeg
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from benchmarks.tile_reading import texture
from wsi_ncmi.slides import open_slide
from wsi_ncmi.synthesis import SynthesisConfig, make_cohort, write_test_slide

SIDE_PX, TILE_PX, JPEG2000_SIDE_PX = 8192, 256, 2048
DIM, N_BAGS = 192, 450
CLASSES = ("first", "second", "third")
NETWORKS = ("resnet18", "squeezenet1_1")
_APERIO = "Aperio Image Library v1\n|AppMag = 40|MPP = 0.25"
_TRUTH_PX = 16


def reading_slides(folder: Path) -> None:
    """One picture in JPEG q80 4:2:0 with Aperio's levels and with halves, and a piece of it in JPEG 2000."""
    rng = np.random.default_rng(0)
    different = np.stack([texture(rng) for _ in range(48)])
    picture = _mosaic(different, rng, SIDE_PX)
    for name, factors in (("quarters.svs", (1, 4, 16)), ("halves.tif", (1, 2, 4, 8))):
        with tifffile.TiffWriter(folder / name) as file:
            for factor in factors:
                side = SIDE_PX // factor
                level = picture.reshape(side, factor, side, factor, 3).mean((1, 3)) if factor > 1 else picture
                file.write(
                    (
                        simplejpeg.encode_jpeg(tile, quality=80, colorsubsampling="420")
                        for tile in _tiles(level.astype(np.uint8))
                    ),
                    shape=(side, side, 3), dtype=np.uint8, tile=(TILE_PX, TILE_PX), compression=7,
                    photometric="ycbcr", subsampling=(2, 2), metadata=None, subfiletype=int(factor > 1),
                    description=_APERIO if name.endswith(".svs") and factor == 1 else None,
                    resolution=(40000 / factor, 40000 / factor), resolutionunit="CENTIMETER",
                )  # fmt: skip
    side = JPEG2000_SIDE_PX
    with tifffile.TiffWriter(folder / "jpeg2000.svs") as file:
        file.write(
            (
                bytes(imagecodecs.jpeg2k_encode(tile, level=38, codecformat="j2k", reversible=False, mct=0))
                for tile in _tiles(np.ascontiguousarray(picture[:side, :side]))
            ),
            shape=(side, side, 3), dtype=np.uint8, tile=(TILE_PX, TILE_PX), compression=33005,
            photometric="rgb", metadata=None, description=_APERIO,
        )  # fmt: skip


def _mosaic(different: NDArray[np.uint8], rng: np.random.Generator, side: int) -> NDArray[np.uint8]:
    count = side // TILE_PX
    chosen = different[rng.integers(0, len(different), (count, count))]
    return np.ascontiguousarray(chosen.swapaxes(1, 2)).reshape(side, side, 3)


def _tiles(level: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    for y, x in itertools.product(range(0, len(level), TILE_PX), repeat=2):
        yield np.ascontiguousarray(level[y : y + TILE_PX, x : x + TILE_PX])


def tissue_slides(folder: Path, count: int = 20) -> None:
    """Drawn slides of four centres and their truth; the first alone in ``one/``, another in ``tiny/``."""
    cohort = make_cohort(folder, SynthesisConfig(slides=count, seed=0, include_empty=False), workers=1)
    for place in ("one", "tiny"):
        (folder / place).mkdir()
    first = min(cohort.slides.iterdir())
    (folder / "one" / first.name).hardlink_to(first)
    write_test_slide(folder / "tiny" / "tiny.svs", width_px=3072, height_px=2048, mpp=0.25)


def dice(boxes: dict[str, list[list[float]]], folder: Path) -> float:
    """Mean over the slides of the Dice coefficient of tiles and drawn tissue; no tiles, no overlap."""
    found = []
    for path in sorted((folder / "slides").iterdir()):
        tissue = _truth(path, folder / "truth" / f"{path.stem}.geojson")
        covered = np.zeros_like(tissue)
        for x, y, width, height in boxes.get(path.stem, []):
            rows, columns = (
                (round(a / _TRUTH_PX), round((a + b) / _TRUTH_PX)) for a, b in ((y, height), (x, width))
            )
            covered[slice(*rows), slice(*columns)] = True
        found.append(2 * (covered & tissue).sum() / (covered.sum() + tissue.sum()))
    return float(np.mean(found))


def _truth(path: Path, drawn: Path) -> NDArray[np.bool_]:
    """Drawn tissue in cells of 16 px."""
    with open_slide(path) as slide:
        image = Image.new("L", (slide.width_px // _TRUTH_PX + 1, slide.height_px // _TRUTH_PX + 1))
    canvas = ImageDraw.Draw(image)
    for feature in json.loads(drawn.read_text("utf-8"))["features"]:
        if feature["properties"]["classification"]["name"] == "tissue":
            for number, ring in enumerate(feature["geometry"]["coordinates"]):
                canvas.polygon([(x / _TRUTH_PX, y / _TRUTH_PX) for x, y in ring], fill=int(number == 0))
    return np.asarray(image).astype(bool)


def weights(folder: Path) -> None:
    """Random weights of every network, one file each."""
    import torch
    import torchvision

    for name in NETWORKS:
        torch.manual_seed(0)
        torch.save(getattr(torchvision.models, name)(weights=None).state_dict(), folder / f"{name}.pth")


def bags(folder: Path) -> None:
    """Bags as long as TCGA-RCC's and half as many, with one fold, in every program's format."""
    import torch

    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(3.5, 0.85, N_BAGS).astype(int), 1, 254)
    classes = rng.integers(0, len(CLASSES), N_BAGS)
    means = rng.normal(0, 0.3, (len(CLASSES), DIM))
    names = [f"slide_{number:03d}" for number in range(N_BAGS)]
    every = [
        (means[k] + rng.normal(0, 1, (n, DIM))).astype(np.float32)
        for k, n in zip(classes, lengths, strict=True)
    ]
    for place in ("clam/pt_files", "torchmil/X", "torchmil/Y"):
        (folder / place).mkdir(parents=True)
    for name, bag, k in zip(names, every, classes, strict=True):
        torch.save(torch.from_numpy(bag), folder / "clam/pt_files" / f"{name}.pt")
        np.save(folder / "torchmil/X" / f"{name}.npy", bag)
        np.save(folder / "torchmil/Y" / f"{name}.npy", np.array([k]))
    labels = [CLASSES[k] for k in classes]
    np.savez(
        folder / "bags.npz", features=np.concatenate(every).astype(np.float16), lengths=lengths,
        label=np.array(labels), slide_id=np.array(names), case_id=np.array(names),
    )  # fmt: skip
    random.Random(0).shuffle(names)
    fold = {"train": names[: N_BAGS * 64 // 100], "validation": names[N_BAGS * 64 // 100 : N_BAGS * 8 // 10]}
    fold["test"] = names[N_BAGS * 8 // 10 :]
    splits = {"schema": "wsi-ncmi/splits/1", "folds": [fold]}
    (folder / "splits.json").write_text(json.dumps(splits), "utf-8")
    with (folder / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["case_id", "slide_id", "label"])
        rows.writerows((f"slide_{i:03d}", f"slide_{i:03d}", label) for i, label in enumerate(labels))
    with (folder / "splits_0.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["", "train", "val", "test"])
        rows.writerows([i, *row] for i, row in enumerate(itertools.zip_longest(*fold.values(), fillvalue="")))


PARTS = {
    "reading": reading_slides,
    "extraction": weights,
    "tissue": tissue_slides,
    "training": bags,
}


def drawn(part: str, work: Path) -> Path:
    """Folder of a part's data, drawn where it is not there."""
    folder = work / "data" / part
    if not (folder / ".drawn").exists():
        folder.mkdir(parents=True, exist_ok=True)
        PARTS[part](folder)
        (folder / ".drawn").touch()
    return folder
