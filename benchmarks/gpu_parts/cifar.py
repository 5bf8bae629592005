"""(e) CIFAR-100 with ResNet-18 by the recipe of the public codes, in pieces, cross-entropy and NCMI.

``configs/images/cifar100_resnet18.yaml`` (200 epochs, batch 128, rate .1 times .2 at 60, 120 and 160,
bfloat16, channels last); images and augmentation are on the device. ``ce``; ``ncmi``, the default;
``authors``, the preset ``paper`` with T = .2 and a feature centre of decay 1 − 1e-6. Each run is a process,
three at a time on a GPU; it stops when the part's time is over and the next call goes on exactly there.

    python -m benchmarks.gpu_parts.cifar DATA FOLDER LOSS SEED SECONDS [--device cpu] [--small]     # one run
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from benchmarks.gpu_parts.record import NotHereError, Record
from wsi_ncmi.core.files import write_json
from wsi_ncmi.losses.config import LossConfig, loss_config
from wsi_ncmi.vision import (
    ImageDataConfig,
    ImageJobConfig,
    NetworkConfig,
    RecipeConfig,
    fit_images,
    open_images,
)
from wsi_ncmi.vision.arrays import is_mosaics, read_mosaics

ROOT = Path(__file__).resolve().parents[2]
LOSSES = ("ce", "ncmi", "authors")
AUTHORS = loss_config(name="ncmi", preset="paper", temperature=0.2, centring_momentum=1 - 1e-6)
_CLOSING_S = 12.0


def measure(
    record: Record,
    device: torch.device,
    *,
    small: bool,
    cifar: Sequence[Path],
    seeds: int,
    out: Path,
) -> None:
    """Runs what isn't finished, the first seed of all losses first."""
    try:
        data = gathered(cifar, out)
    except NotHereError as error:
        record.note("data", left_out=str(error))
        return
    record.note("data", figures={"found": data.name})
    names = [(loss, seed) for seed in range(seeds) for loss in LOSSES]
    waiting = [each for each in names if "figures" not in record.cells.get(_cell(*each), {})]
    running: dict[tuple[str, int], subprocess.Popen[bytes]] = {}
    while running or (waiting and record.left_s > _CLOSING_S):
        while waiting and len(running) < (3 if device.type == "cuda" else 1) and record.left_s > _CLOSING_S:
            each = waiting.pop(0)
            running[each] = _started(data, out, *each, record.left_s - _CLOSING_S, device, small)
        for each, process in list(running.items()):
            if process.poll() is not None:
                del running[each]
                _note(record, out, *each)
        time.sleep(0.1)


def _cell(loss: str, seed: int) -> str:
    return f"{loss}_seed{seed}"


def gathered(given: Sequence[Path], out: Path) -> Path:
    """The image set: the given one, or one archive of the mosaics that several folders (and calls) brought.

    Raises:
        NotHereError: There is none, or some of its mosaics are still missing.
    """
    whole = out / "cifar100.npz"
    if whole.is_file():
        return whole
    if len(given) == 1 and given[0].exists() and not _has_mosaics(given[0]):
        return given[0]
    parts = out / "cifar100"
    parts.mkdir(parents=True, exist_ok=True)
    for folder in given:
        for file in sorted(folder.glob("*")):
            if file.suffix in (".webp", ".png", ".npz", ".json") and not (parts / file.name).exists():
                shutil.copy(file, parts / file.name)
    if not is_mosaics(parts):
        raise NotHereError("there is no CIFAR-100 here; name its folder, archive or .npz with --cifar")
    try:
        names, train, test = read_mosaics(parts)
    except (OSError, ValueError) as error:
        raise NotHereError(f"CIFAR-100 isn't whole yet ({error}); give the rest with --cifar") from error
    partial = whole.with_suffix(".partial.npz")
    np.savez(
        partial, classes=np.array(names), x_train=train.pixels, y_train=train.y, x_test=test.pixels,
        y_test=test.y,
    )  # fmt: skip
    partial.replace(whole)
    return whole


def _has_mosaics(folder: Path) -> bool:
    return folder.is_dir() and any(folder.glob("*.webp"))


def _started(
    data: Path, out: Path, loss: str, seed: int, seconds: float, device: torch.device, small: bool
) -> subprocess.Popen[bytes]:
    folder = out / "cifar" / _cell(loss, seed)
    folder.parent.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable, "-m", "benchmarks.gpu_parts.cifar", data.resolve(), folder.resolve(), loss, str(seed),
        f"{seconds:.1f}", "--device", device.type, *(["--small"] if small else []),
    ]  # fmt: skip
    with folder.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)


def _note(record: Record, out: Path, loss: str, seed: int) -> None:
    """What a run has come to, from the summary that it left."""
    path = out / "cifar" / f"{_cell(loss, seed)}.json"
    log = path.with_suffix(".log").read_text("utf-8", errors="replace")
    found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    if found.get("finished"):
        record.note(_cell(loss, seed), figures=found)
    elif found:
        record.note(
            _cell(loss, seed), left_out=f"epoch {found['epochs']} done; the same call goes on", so_far=found
        )
    else:
        last = (log.strip().splitlines() or ["it said nothing"])[-1]
        record.note(_cell(loss, seed), error=last[:300], traceback=log[-4000:])


def job_of(*, device: str, small: bool) -> ImageJobConfig:
    """The recipe; ``small`` is two epochs of a narrow network, for a CPU."""
    text = (ROOT / "configs/images/cifar100_resnet18.yaml").read_text("utf-8")
    written = yaml.safe_load(text)
    network = {**written["network"]}
    recipe = {**written["recipe"], "device": device, "evaluate_every": 5, "milestones": (0.3, 0.6, 0.8)}
    if small:
        network |= {"stem_stride": 2, "arguments": {"layers": [1, 1, 1, 1], "channels": [4, 8, 8, 8]}}
        recipe |= {"epochs": 3, "batch_size": 20, "precision": "float32", "evaluate_every": 1}
    return ImageJobConfig(
        data=ImageDataConfig(**written["data"]),
        network=NetworkConfig(**network),
        recipe=RecipeConfig(**recipe),
    )


def loss_of(name: str) -> LossConfig:
    """The loss of a cell."""
    return AUTHORS if name == "authors" else loss_config(name=name)


def run(data: Path, folder: Path, loss: str, seed: int, seconds: float, *, device: str, small: bool) -> None:
    """One run until it is finished or its time is over; its summary is written beside its folder."""
    job = job_of(device=device, small=small)
    until = time.monotonic() + seconds
    images = open_images(ImageDataConfig(path=data))
    found = fit_images(images, job, loss_of(loss), seed=seed, out=folder, until=until)
    scores = [row for row in found.curves if row["top1"] == row["top1"]]
    summary: dict[str, Any] = {"finished": found.finished, "epochs": len(found.curves)}
    if scores:
        last = scores[-1]
        summary |= {
            "top1": last["top1"], "top5": last["top5"], "macro_f1": last["macro_f1"],
            "top1_highest": max(row["top1"] for row in scores),
            "images_per_s": float(np.median([row["images_per_s"] for row in found.curves])),
            "training_s": sum(row["seconds"] for row in found.curves),
            "train_images": len(images.train.y),
        }  # fmt: skip
        if last["top1_nearest"] == last["top1_nearest"]:
            summary["top1_nearest"] = last["top1_nearest"]
    write_json(folder.with_suffix(".json"), summary)


def main() -> None:
    """One run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("loss", choices=LOSSES)
    parser.add_argument("seed", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--small", action="store_true")
    given = parser.parse_args()
    run(
        given.data, given.folder, given.loss, given.seed, given.seconds, device=given.device,
        small=given.small,
    )  # fmt: skip


if __name__ == "__main__":
    main()
