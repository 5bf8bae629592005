"""Trains a tiny mask model on drawn slides and exports it as ONNX with its JSON.

    python research/mask_model.py OUT.onnx [--slides N] [--steps N]

The tests' model (``tests/tissue/drawn_mask.onnx``) was made so: 20 slides of five centres, drawn by
``wsi_ncmi.synthesis`` alone, at 8 µm per pixel: background, tissue, pen, fold. It is no model for real
slides.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from shapely.geometry import shape
from torch import nn

from wsi_ncmi.slides import open_slide, read_overview
from wsi_ncmi.synthesis import CENTRES, SlidePlan, make_slide
from wsi_ncmi.tissue.mask import raster

CLASSES = ("background", "tissue", "pen", "fold")
MPP, TILE_PX, OVERLAP_PX = 8.0, 64, 16
ARTEFACTS = ("fold", "pen:red", "pen:black", "pen:blue")
MEAN, STD = (0.85, 0.75, 0.85), (0.2, 0.2, 0.2)


def network() -> nn.Module:
    """1,900 parameters that see 23 pixels."""
    return nn.Sequential(
        nn.Conv2d(3, 10, 3, padding=1), nn.ReLU(),
        nn.Conv2d(10, 10, 3, padding=2, dilation=2), nn.ReLU(),
        nn.Conv2d(10, 10, 3, padding=4, dilation=4), nn.ReLU(),
        nn.Conv2d(10, len(CLASSES), 3, padding=4, dilation=4),
    )  # fmt: skip


def drawn(folder: Path, number: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pixels and classes of a drawn slide."""
    plan = SlidePlan(
        f"s{number}",
        number,
        0,
        number % len(CENTRES),
        "negative",
        ARTEFACTS[(number // len(CENTRES)) % len(ARTEFACTS)],
        True,
        31,
    )
    make_slide(plan, folder, folder)
    truth = json.loads((folder / f"{plan.slide_id}.geojson").read_text())
    with open_slide(folder / plan.file_name) as slide:
        scale = truth["slide"]["mpp"] / MPP
        overview = read_overview(slide, round(slide.width_px * scale), round(slide.height_px * scale))
    classes = np.zeros(overview.readable.shape, np.int64)
    for value, name in enumerate(CLASSES):
        areas = [
            shape(each["geometry"])
            for each in truth["features"]
            if each["properties"]["classification"]["name"] == name
        ]
        if areas:
            classes[raster(areas, classes.shape, overview.downsample_x, overview.downsample_y)] = value
    return overview.pixels, classes


def main() -> None:
    """Draws, trains, exports."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--slides", type=int, default=20)
    parser.add_argument("--steps", type=int, default=700)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        slides = [drawn(Path(folder), number) for number in range(arguments.slides)]
    model = network()
    weight = torch.tensor([1.0, 1.0, 1.5, 4.0])
    optimiser = torch.optim.AdamW(model.parameters(), 5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, arguments.steps)
    for step in range(arguments.steps):
        images, targets = [], []
        for _ in range(8):
            pixels, classes = slides[rng.integers(len(slides))]
            # Half of the crops hold an artefact where there is one.
            wanted = np.argwhere(classes >= 2) if rng.random() < 0.5 else np.empty((0, 2))
            y, x = wanted[rng.integers(len(wanted))] if len(wanted) else rng.integers(0, classes.shape)
            top, left = (
                int(np.clip(at - TILE_PX // 2, 0, max(0, side - TILE_PX)))
                for at, side in zip((y, x), classes.shape, strict=True)
            )
            crop, target = pixels[top:, left:][:TILE_PX, :TILE_PX], classes[top:, left:][:TILE_PX, :TILE_PX]
            missing = [(0, TILE_PX - side) for side in target.shape]
            images.append(np.pad(crop, [*missing, (0, 0)], constant_values=255))
            targets.append(np.pad(target, missing))
        batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
        batch = (batch - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
        loss = nn.functional.cross_entropy(model(batch), torch.from_numpy(np.stack(targets)), weight)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        if step % 300 == 0:
            print(step, round(loss.item(), 4), flush=True)
    example = torch.zeros(1, 3, TILE_PX, TILE_PX)
    names = {"input": {0: "n", 2: "h", 3: "w"}, "output": {0: "n", 2: "h", 3: "w"}}
    torch.onnx.export(
        model.eval(), (example,), str(arguments.out), dynamo=False, opset_version=17, input_names=["input"],
        output_names=["output"], dynamic_axes=names,
    )  # fmt: skip
    said = {
        "mpp": MPP,
        "tile_px": TILE_PX,
        "overlap_px": OVERLAP_PX,
        "mean": MEAN,
        "std": STD,
        "classes": CLASSES,
    }
    arguments.out.with_suffix(".json").write_text(json.dumps(said, indent=2) + "\n")


if __name__ == "__main__":
    main()
