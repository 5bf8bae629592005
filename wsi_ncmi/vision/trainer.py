"""Training of one image run: a network fitted with one loss and one seed, its identity and its files."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import ensure_folder, parse_json, write_json
from wsi_ncmi.core.provenance import collect_provenance
from wsi_ncmi.losses import Criterion, LossConfig, NCMILoss, build_loss
from wsi_ncmi.parallel import process_group as distributed
from wsi_ncmi.training import (
    CURVES,
    LAST,
    RUN_JSON,
    derive_seed,
    first_difference,
    read_resume,
    write_curves,
    write_modules,
)
from wsi_ncmi.vision.arrays import ArrayPart
from wsi_ncmi.vision.classifier import CLASSIFIER_SCHEMA, build_network, feature_width
from wsi_ncmi.vision.config import ImageDataConfig, ImageJobConfig, RecipeConfig
from wsi_ncmi.vision.data import ImageData
from wsi_ncmi.vision.loop import ImageLoop, channel_statistics


@dataclass(frozen=True)
class ImageRun:
    """A run and its curves.

    Attributes:
        curves: The rows of ``curves.csv``, one an epoch; a score that wasn't measured is NaN.
        finished: False when it was stopped before its last epoch; the same call resumes it.
        form: The resolved form of NCMI; empty for other losses.
        device: Name of the device.
    """

    curves: tuple[Mapping[str, Any], ...]
    finished: bool = True
    form: Mapping[str, Any] = field(default_factory=dict)
    device: str = ""


def fit_images(
    images: ImageData,
    config: ImageJobConfig,
    loss: LossConfig,
    *,
    seed: int,
    out: Path,
    overwrite: bool = False,
    until: float = math.inf,
    on_epoch: Callable[[Mapping[str, Any]], None] | None = None,
) -> ImageRun:
    """Fits one network, or resumes it; a finished run is only read.

    The last epoch's network is kept. Nothing is chosen on the test part. Under ``torchrun`` all processes
    call this within ``wsi_ncmi.parallel.process_group``, and the first one writes.

    Args:
        images: The opened set.
        config: Augmentation, network and recipe.
        loss: The loss.
        seed: Seed of weights, order and augmentation; equal seeds give equal initial networks and batches,
            whatever the loss.
        out: Folder of the run.
        overwrite: Replace a run of another configuration.
        until: ``time.monotonic()`` at which to stop and save.
        on_epoch: Called with each row of ``curves.csv``.

    Raises:
        InputError: The configuration doesn't fit the images, or ``out`` holds another run.
        TrainingError: The loss isn't finite, or a picture can't be decoded.
    """
    device = distributed.resolve_device(config.recipe.device, "recipe.device")
    image_px = _image_px(images, config.data)
    _check_batches(images, config.recipe, device)
    with distributed.private_torch(config.recipe.threads, device):
        torch.manual_seed(derive_seed(seed, "network"))
        network = build_network(config.network)
        width = feature_width(network, image_px)
        counts = np.bincount(images.train.y, minlength=len(images.classes)).tolist()
        torch.manual_seed(derive_seed(seed, "criterion"))
        criterion = build_loss(loss, len(images.classes), width, counts)
        identity = _identity(images, criterion, config, loss, seed)
        if distributed.rank() == 0:
            ensure_folder(out)
        found = _found(out, identity, overwrite)
        if isinstance(found, ImageRun):
            return found
        loop = ImageLoop(
            network, criterion, images, config, seed=seed, device=device, folder=out, identity=identity,
            on_epoch=on_epoch,
        )  # fmt: skip
        if found is not None:
            loop.load_state_dict(found)
        finished = loop.run(until)
        if finished and distributed.rank() == 0:
            mean, std = channel_statistics(images.train)
            content = {
                "classes": list(images.classes), "image_px": image_px, "mean": mean.tolist(),
                "std": std.tolist(), "network": asdict(config.network), "loss": asdict(loss),
                "class_counts": counts,
            }  # fmt: skip
            write_modules(out, {"network": network, "criterion": criterion}, CLASSIFIER_SCHEMA, content)
            _write_run(out, identity, loop.curves, device)
    return ImageRun(tuple(loop.curves), finished)


def _image_px(images: ImageData, data: ImageDataConfig) -> int:
    if isinstance(images.train, ArrayPart):
        side = int(images.train.pixels.shape[1])
        if data.image_px not in (None, side):
            raise InputError(
                f"data.image_px is {data.image_px}, but images in memory are {side} × {side}; leave it out."
            )
        return side
    if data.image_px is None:
        raise InputError("Pictures in files need data.image_px, the side of the network's input (often 224).")
    return data.image_px


def _check_batches(images: ImageData, recipe: RecipeConfig, device: torch.device) -> None:
    size, world = recipe.batch_size, distributed.world_size()
    if len(images.train.y) < size:
        raise InputError(
            f"recipe.batch_size is {size}, but there are only {len(images.train.y)} training images."
        )
    if size % world:
        raise InputError(f"recipe.batch_size {size} can't be shared evenly by {world} processes.")
    if recipe.sync_batch_norm and device.type != "cuda":
        raise InputError("recipe.sync_batch_norm needs CUDA; set it to false.")


def _identity(
    images: ImageData, criterion: Criterion, config: ImageJobConfig, loss: LossConfig, seed: int
) -> dict[str, Any]:
    """Everything that decides the result of a run, JSON-ready; no path and nothing about pace is in it.

    NCMI enters by its resolved form: a preset's meaning may change with the version.
    """
    parts = {"train": images.train, "validation": images.validation, "test": images.test}
    return {
        "data": config.data.identity(),
        "network": asdict(config.network),
        "loss": asdict(loss),
        **({"form": _form(criterion)} if isinstance(criterion, NCMILoss) else {}),
        "recipe": config.recipe.identity(),
        "processes": distributed.world_size(),
        "seed": seed,
        "classes": list(images.classes),
        "images": {name: part.digest() for name, part in parts.items() if part is not None},
    }


def _form(criterion: NCMILoss) -> dict[str, Any]:
    # The decision is fitted without the training's embeddings here: what needs them has no say.
    without = ("class_mean_decision", "plain_when_far")
    return {key: value for key, value in asdict(criterion.form).items() if key not in without}


def _found(out: Path, identity: Mapping[str, Any], overwrite: bool) -> ImageRun | dict[str, Any] | None:
    """The finished run in the folder, or the state to resume, or None; ``InputError`` on another run."""
    there: tuple[dict[str, Any], ImageRun | dict[str, Any]] | None
    there = read_run(out) if (out / RUN_JSON).is_file() else read_resume(out)
    if there is None:
        return None
    difference = first_difference(there[0], identity)
    if not difference:
        return there[1]
    if not overwrite:
        raise InputError(
            f"{out} holds a run of another configuration ({difference}); choose another folder, or pass "
            "--overwrite to replace it."
        )
    if distributed.world_size() > 1:
        torch.distributed.barrier()  # Every process has looked before the first one clears up.
    if distributed.rank() == 0:
        for name in (RUN_JSON, CURVES, LAST):
            (out / name).unlink(missing_ok=True)
    return None


def _write_run(
    out: Path, identity: Mapping[str, Any], curves: list[dict[str, Any]], device: torch.device
) -> None:
    """Writes ``curves.csv``, then ``run.json`` as proof that the run is whole; removes ``last.ckpt``."""
    write_curves(out, curves)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    final = {name: value for name, value in curves[-1].items() if value == value}
    content = {"final": final, "epochs": len(curves), "device": name, "identity": identity}
    write_json(out / RUN_JSON, {**content, "provenance": collect_provenance()})
    (out / LAST).unlink(missing_ok=True)


def read_run(out: Path) -> tuple[dict[str, Any], ImageRun]:
    """Reads a finished run: its identity and its result.

    Raises:
        InputError: A file is damaged.
    """
    import pandas as pd

    try:
        found = parse_json((out / RUN_JSON).read_text(encoding="utf-8"))
        identity: dict[str, Any] = found["identity"]
        curves: list[Any] = pd.read_csv(out / CURVES, float_precision="round_trip").to_dict("records")
        if len(curves) != found["epochs"]:
            raise ValueError(f"{len(curves)} rows in {CURVES}")
        return identity, ImageRun(tuple(curves), True, identity.get("form", {}), str(found["device"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"The run in {out} can't be read ({error}); remove its folder to train it again."
        ) from error
