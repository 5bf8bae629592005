"""What makes a run of images the run it is, and what is on disk of it: ``run.json`` and ``curves.csv``."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import atomic_path, write_json
from wsi_ncmi.core.provenance import collect_provenance
from wsi_ncmi.losses import LossConfig
from wsi_ncmi.losses.base import Criterion
from wsi_ncmi.losses.ncmi import NCMILoss
from wsi_ncmi.training.identity import first_difference
from wsi_ncmi.training.resume import LAST, read_resume
from wsi_ncmi.vision.config import ImageDataConfig, NetworkConfig, RecipeConfig
from wsi_ncmi.vision.data.parts import ImageData
from wsi_ncmi.vision.loop import CURVE_COLUMNS
from wsi_ncmi.vision.ranks import Ranks

__all__ = [
    "CURVES", "RUN_JSON", "FinishedRun", "found_state", "image_identity", "read_finished", "write_finished",
]  # fmt: skip

RUN_JSON = "run.json"
CURVES = "curves.csv"


@dataclass(frozen=True)
class FinishedRun:
    """A run that is done.

    Attributes:
        epochs: Its epochs.
        curves: The rows of ``curves.csv``; a value that wasn't measured is NaN.
        form: The resolved form of NCMI; empty for other losses.
        device: What it ran on.
    """

    epochs: int
    curves: tuple[Mapping[str, Any], ...]
    form: Mapping[str, Any]
    device: str


def image_identity(
    images: ImageData,
    criterion: Criterion,
    data: ImageDataConfig,
    network: NetworkConfig,
    loss: LossConfig,
    recipe: RecipeConfig,
    *,
    seed: int,
    processes: int,
) -> dict[str, Any]:
    """Everything that decides the result of a run, JSON-ready; no path and nothing about pace is in it.

    NCMI enters by its resolved form: what a preset's name means may change with the version.
    """
    form = {"form": asdict(criterion.form)} if isinstance(criterion, NCMILoss) else {}
    parts = {"train": images.train, "validation": images.validation, "test": images.test}
    return {
        "data": data.identity(),
        "network": asdict(network),
        "loss": asdict(loss),
        **form,
        "recipe": recipe.identity(),
        "processes": processes,
        "seed": seed,
        "classes": list(images.classes),
        "images": {name: part.digest() for name, part in parts.items() if part is not None},
    }


def found_state(
    out: Path, identity: Mapping[str, Any], *, overwrite: bool, ranks: Ranks
) -> FinishedRun | dict[str, Any] | None:
    """Looks at a run's folder.

    Args:
        out: The folder.
        identity: What the run is to be.
        overwrite: Remove a run of another configuration.
        ranks: Which process this is; all call it together.

    Returns:
        The finished run, the state to go on from, or None to begin.

    Raises:
        InputError: The folder holds another run, or a file of it can't be read.
    """
    resumed = None
    if (out / RUN_JSON).is_file():
        there, finished = read_finished(out)
    else:
        finished = None
        resumed = read_resume(out)
        if resumed is None:
            return None
        there = resumed[0]
    difference = first_difference(there, identity)
    if not difference:
        return finished if resumed is None else resumed[1]
    if not overwrite:
        raise InputError(
            f"{out} holds a run of another configuration ({difference}); choose another folder, or pass "
            "--overwrite to replace it."
        )
    if ranks.world > 1:
        torch.distributed.barrier()  # Every process has looked before the first one clears up.
    if ranks.is_first:
        for name in (RUN_JSON, CURVES, LAST):
            (out / name).unlink(missing_ok=True)
    return None


def write_finished(
    out: Path, identity: Mapping[str, Any], curves: Sequence[Mapping[str, Any]], ranks: Ranks
) -> None:
    """Writes ``curves.csv``, then ``run.json`` as the proof that the run is whole; ``last.ckpt`` goes."""
    with atomic_path(out / CURVES) as temporary, temporary.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, CURVE_COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in curves:
            writer.writerow({name: "" if value != value else value for name, value in row.items()})
    device = torch.cuda.get_device_name(ranks.device) if ranks.device.type == "cuda" else "cpu"
    final = {name: value for name, value in curves[-1].items() if value == value}
    content = {"final": final, "epochs": len(curves), "device": device, "identity": identity}
    write_json(out / RUN_JSON, {**content, "provenance": collect_provenance()})
    (out / LAST).unlink(missing_ok=True)


def read_finished(out: Path) -> tuple[dict[str, Any], FinishedRun]:
    """Reads a finished run: its identity, and what it left.

    Raises:
        InputError: A file is damaged.
    """
    try:
        found = json.loads((out / RUN_JSON).read_text(encoding="utf-8"))
        identity: dict[str, Any] = found["identity"]
        with (out / CURVES).open(encoding="utf-8", newline="") as handle:
            curves = tuple(_typed(row) for row in csv.DictReader(handle))
        if len(curves) != found["epochs"] or not isinstance(identity, dict):
            raise ValueError(f"{len(curves)} rows in {CURVES}")
        run = FinishedRun(len(curves), curves, identity.get("form", {}), str(found["device"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"The run in {out} can't be read ({error}); remove its folder to train it again."
        ) from error
    return identity, run


def _typed(row: Mapping[str, str]) -> dict[str, Any]:
    return {
        name: value
        if name == "part"
        else int(value)
        if name == "epoch"
        else float(value)
        if value
        else math.nan
        for name, value in row.items()
    }
