"""One run: a network fitted to an image set with one loss and one seed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import ensure_folder
from wsi_ncmi.losses import LossConfig, build_loss
from wsi_ncmi.losses.base import Criterion
from wsi_ncmi.training.seeding import derive_seed
from wsi_ncmi.vision.augmentation import Augmentation
from wsi_ncmi.vision.batches import Batches, make_batches
from wsi_ncmi.vision.classifier import write_classifier
from wsi_ncmi.vision.config import ImageDataConfig, NetworkConfig, RecipeConfig
from wsi_ncmi.vision.data.parts import ArrayPart, ImageData, ImagePart
from wsi_ncmi.vision.loop import ImageLoop, Parts
from wsi_ncmi.vision.network import build_network, feature_width
from wsi_ncmi.vision.ranks import Ranks
from wsi_ncmi.vision.records import FinishedRun, found_state, image_identity, write_finished

__all__ = ["ImageRun", "channel_statistics", "fit_images"]

# Means and deviations of ImageNet's channels (the usual ones), for pictures that are never all in memory.
_IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


@dataclass(frozen=True)
class ImageRun:
    """What a run left.

    Attributes:
        finished: False when it was stopped before its last epoch; the same call goes on.
        epochs: Finished epochs.
        curves: The rows of ``curves.csv``.
    """

    finished: bool
    epochs: int
    curves: tuple[Mapping[str, Any], ...]


def fit_images(
    images: ImageData,
    *,
    data: ImageDataConfig,
    network: NetworkConfig,
    loss: LossConfig,
    recipe: RecipeConfig,
    seed: int,
    out: Path,
    ranks: Ranks,
    overwrite: bool = False,
    until: float = float("inf"),
    on_epoch: Callable[[Mapping[str, Any]], None] | None = None,
) -> ImageRun:
    """Fits one network, or goes on with it; a finished run is only read.

    The last epoch's network is kept. Nothing is chosen on the test part.

    Args:
        images: The opened set.
        data: How images are augmented.
        network: Which network.
        loss: Which loss.
        recipe: How to train.
        seed: Seed of weights, order and augmentation; equal seeds give equal initial networks and batches,
            whatever the loss.
        out: Folder of the run.
        ranks: Which process this is; only the first one writes.
        overwrite: Replace a run of another configuration.
        until: ``time.monotonic()`` at which to stop and save.
        on_epoch: Called with each row of ``curves.csv``.

    Raises:
        InputError: The configuration doesn't fit the images, or ``out`` holds another run.
        TrainingError: The loss isn't finite, or a picture can't be decoded.
    """
    image_px = _image_px(images, data)
    _check_batches(images, recipe, ranks)
    with _private_torch(recipe.threads, ranks.device):
        torch.manual_seed(derive_seed(seed, "network"))
        net = build_network(network)
        width = feature_width(net, image_px)
        counts = np.bincount(images.train.y, minlength=len(images.classes)).tolist()
        torch.manual_seed(derive_seed(seed, "criterion"))
        criterion = build_loss(loss, len(images.classes), width, counts)
        identity = image_identity(
            images, criterion, data, network, loss, recipe, seed=seed, processes=ranks.world
        )
        if ranks.is_first:
            ensure_folder(out)
        state = found_state(out, identity, overwrite=overwrite, ranks=ranks)
        if isinstance(state, FinishedRun):
            return ImageRun(True, state.epochs, state.curves)
        loop = _loop(
            images, net, criterion, data, recipe, seed, ranks,
            folder=out, identity=identity, on_epoch=on_epoch,
        )  # fmt: skip
        if state is not None:
            loop.load_state_dict(state)
        finished = loop.run(until)
        if finished and ranks.is_first:
            mean, std = channel_statistics(images.train)
            write_classifier(
                out, net, criterion, classes=images.classes, image_px=image_px, mean=mean.tolist(),
                std=std.tolist(), network_options=network, loss=loss, class_counts=counts,
            )  # fmt: skip
            write_finished(out, identity, loop.curves, ranks)
    return ImageRun(finished, loop.epoch, tuple(loop.curves))


def channel_statistics(part: ImagePart) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the channels of the training images on the scale 0–255, float64 (3,)."""
    if not isinstance(part, ArrayPart):
        mean, std = _IMAGENET
        return torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64)
    # Whole numbers are counted exactly, whatever the order.
    counts = np.stack([np.bincount(part.pixels[..., c].ravel(), minlength=256) for c in range(3)])
    level = np.arange(256)
    mean = (counts * level).sum(axis=1) / counts.sum(axis=1)
    variance = (counts * (level - mean[:, None]) ** 2).sum(axis=1) / counts.sum(axis=1)
    return torch.from_numpy(mean), torch.from_numpy(np.sqrt(np.maximum(variance, 1e-12)))


def _image_px(images: ImageData, data: ImageDataConfig) -> int:
    if isinstance(images.train, ArrayPart):
        side = int(images.train.pixels.shape[1])
        if data.image_px not in (None, side):
            raise InputError(
                f"data.image_px is {data.image_px}, but images in memory are {side} × {side}; leave it out."
            )
        return side
    if data.image_px is None:
        raise InputError("Pictures in files need data.image_px, the side that the network sees (often 224).")
    return data.image_px


def _check_batches(images: ImageData, recipe: RecipeConfig, ranks: Ranks) -> None:
    if len(images.train.y) < recipe.batch_size:
        raise InputError(
            f"recipe.batch_size is {recipe.batch_size}, but there are only {len(images.train.y)} training "
            "images."
        )
    if recipe.batch_size % ranks.world:
        raise InputError(
            f"recipe.batch_size {recipe.batch_size} can't be shared evenly by {ranks.world} processes."
        )
    if recipe.sync_batch_norm and ranks.device.type != "cuda":
        raise InputError("recipe.sync_batch_norm needs CUDA; set it to false.")


def _loop(
    images: ImageData,
    net: nn.Module,
    criterion: Criterion,
    data: ImageDataConfig,
    recipe: RecipeConfig,
    seed: int,
    ranks: Ranks,
    **more: Any,
) -> ImageLoop:
    net.to(ranks.device)
    if recipe.channels_last:
        net.to(memory_format=torch.channels_last)
    criterion.to(ranks.device)
    if recipe.sync_batch_norm and ranks.world > 1:
        net = nn.SyncBatchNorm.convert_sync_batchnorm(net)  # type: ignore[no-untyped-call]
    if recipe.compile != "off":
        net.compile(mode=recipe.compile)
    mean, std = channel_statistics(images.train)
    # Pictures in files get a random resized crop in place of the shift.
    options = data if isinstance(images.train, ArrayPart) else replace(data, crop_padding=0)
    augmentation = Augmentation(options, mean, std, ranks.device, recipe.channels_last)

    def batches(part: ImagePart) -> Batches:
        return make_batches(part, augmentation, ranks, data, recipe.loader_workers)

    train = batches(images.train)
    name = data.evaluate_on
    validation = None if images.validation is None else batches(images.validation)
    evaluated = validation if name == "validation" else None if images.test is None else batches(images.test)
    assert evaluated is not None
    source = validation or train
    rows = np.arange(len(source.y))
    if len(rows) > recipe.decision_images:
        drawn = np.random.default_rng(derive_seed(0, "decision")).permutation(rows)
        rows = np.sort(drawn[: recipe.decision_images])
    parts = Parts(train, evaluated, name, (source, rows))
    return ImageLoop(net, criterion, parts, recipe=recipe, seed=seed, ranks=ranks, **more)


@contextlib.contextmanager
def _private_torch(threads: int, device: torch.device) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        torch.set_num_threads(before)
