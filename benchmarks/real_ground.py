"""Tissue and artefacts on real images, per image, by the detectors of 0.1 (version 4) and today's.

    python benchmarks/real_ground.py DATA [--json]

``DATA`` has ``pen/`` (two thumbnails with masks of the ink; their resolution isn't known, 16 µm per pixel is
assumed), ``centre_tiles/`` (five regions of lymph node, 0.25 µm), ``slides/CMU-1-Small-Region.svs`` (skin)
and ``tiles/`` (LC25000: of each class up to 400 tiles put together on glass as one picture, 0.5 µm).

Truth. Ink: the masks. Tissue: outlines drawn by hand (``real_ground/*.geojson``, to about 15 µm on the skin,
100 µm on the pen's slide; what ink covers isn't judged, loose keratin with its gaps is tissue); the centres'
regions and the tiles are tissue as a whole. Folds, borders, and ink elsewhere: by eye there are none, so all
that is found is false (thin stripes of red ink that the masks leave out count so, too); shares are of the
tissue, of the whole picture where there is none (black pen).
"""

import argparse
import csv
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_ncmi.slides import Mpp, open_slide
from wsi_ncmi.tissue import ArtifactConfig, TissueConfig, analyse_tissue, read_geojson
from wsi_ncmi.tissue.mask import raster

TRUTH = Path(__file__).parent / "real_ground"
TILE, ACROSS, MARGIN = 224, 20, 100
VERSIONS: tuple[Literal[4, 5], ...] = (4, 5)


def mosaic(folder: Path, label: str, out: Path) -> None:
    """Puts tiles of a class together on glass."""
    with (folder / "tiles.csv").open() as handle:
        names = [row["file"] for row in csv.DictReader(handle) if row["label"] == label][: ACROSS**2]
    down = len(names) // ACROSS
    picture = np.full((down * TILE + 2 * MARGIN, ACROSS * TILE + 2 * MARGIN, 3), 244, np.uint8)
    for number, name in enumerate(names[: down * ACROSS]):
        top, left = (MARGIN + place * TILE for place in divmod(number, ACROSS))
        picture[top : top + TILE, left : left + TILE] = np.asarray(Image.open(folder / name).convert("RGB"))
    Image.fromarray(picture).save(out)


def images(data: Path, scratch: Path) -> Iterator[tuple[str, Path, float]]:
    """Name, file and µm per pixel."""
    for colour in ("black", "red"):
        yield f"pen_{colour}", data / "pen" / f"pen_{colour}.png", 16.0
    yield "CMU-1-Small-Region", data / "slides" / "CMU-1-Small-Region.svs", 0.499
    for file in sorted((data / "centre_tiles").glob("centre_*")):
        yield file.name[:8], file, 0.25
    for label in ("lung_aca", "lung_n", "lung_scc"):
        mosaic(data / "tiles", label, scratch / f"{label}.png")
        yield label, scratch / f"{label}.png", 0.5


def agreement(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> dict[str, float]:
    """IoU, recall and precision."""
    both = np.count_nonzero(found & truth)
    return {
        "iou": both / max(1, np.count_nonzero(found | truth)),
        "recall": both / max(1, np.count_nonzero(truth)),
        "precision": both / max(1, np.count_nonzero(found)),
    }


def tissue_truth(name: str, shape: tuple[int, ...], down: tuple[float, float]) -> NDArray[np.bool_]:
    """The drawn or stated tissue."""
    if (file := TRUTH / f"{name}.geojson").is_file():
        return raster([area.polygon for area in read_geojson(file)], shape, *down)
    truth = np.full(shape, name != "pen_black")
    if name.startswith("lung"):
        edge_y, edge_x = round(MARGIN / down[1]), round(MARGIN / down[0])
        truth[:] = False
        truth[edge_y:-edge_y, edge_x:-edge_x] = True
    return truth


def main() -> None:
    """Measures and prints a row an image and version."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    values: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, path, um in images(arguments.data, Path(scratch)):
            for detectors in VERSIONS:
                with open_slide(path) as slide:
                    seen = analyse_tissue(
                        slide, Mpp(um, um, "given"), TissueConfig(), ArtifactConfig(detectors=detectors)
                    )
                mask, where = seen.mask.mask, seen.artifacts.where
                truth = tissue_truth(name, mask.shape, (seen.mask.downsample_x, seen.mask.downsample_y))
                ink = np.zeros(mask.shape, np.bool_)
                if name.startswith("pen"):
                    given = Image.open(path.with_name(f"{path.stem}_mask.png")).convert("L")
                    ink = np.asarray(given) > 0
                row = {f"tissue_{key}": value for key, value in agreement(mask & ~ink, truth & ~ink).items()}
                if ink.any():
                    row |= {f"pen_{key}": value for key, value in agreement(where("pen"), ink).items()}
                area = np.count_nonzero(truth) or truth.size
                row |= {
                    f"{kind}_false": np.count_nonzero(where(kind) & ~ink) / area
                    for kind in seen.artifacts.kinds
                }
                values[f"{name} v{detectors}"] = row = {key: round(float(v), 4) for key, v in row.items()}
                print(f"{name} v{detectors}", " ".join(f"{key} {value:.3f}" for key, value in row.items()))
    if arguments.json:
        print(json.dumps(values))


if __name__ == "__main__":
    main()
