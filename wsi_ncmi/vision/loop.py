"""The training loop of images: a state that can be saved after any step and resumed from there.

Order, augmentation and the noise of a step (dropout, stochastic depth) are pure functions of seed, epoch and
step: the checkpoint holds no state of any random generator, and on CPU a resumed run equals an undisturbed
one bit for bit.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wsi_ncmi.core.errors import TrainingError
from wsi_ncmi.losses import Criterion, NCMILoss
from wsi_ncmi.losses.running_statistics import gather_over_ranks, sum_over_ranks
from wsi_ncmi.metrics import information_metrics
from wsi_ncmi.parallel import process_group as distributed
from wsi_ncmi.training import derive_seed, f1_and_recall, learning_rate_at, probabilities_of, write_resume
from wsi_ncmi.vision.arrays import ArrayPart
from wsi_ncmi.vision.batches import Augmentation, Batches, DeviceBatches, PictureBatches, epoch_order
from wsi_ncmi.vision.config import ImageJobConfig, RecipeConfig
from wsi_ncmi.vision.data import ImageData, ImagePart

SCORES = ("loss", "top1", "top5", "macro_f1", "cmi", "gamma", "ncmi", "top1_nearest")
"""Names of the scores; ``top1_nearest`` is NaN for a loss that has no centroids."""

_CURVE_COLUMNS = ("epoch", "part", "lr", "train_loss", *SCORES, "images_per_s", "seconds")
_CHECK_EVERY = 50
_EVALUATION_BATCH = 512
# Means and deviations of ImageNet's channels (the usual ones), for pictures that are never all in memory.
_IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


def channel_statistics(part: ImagePart) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the channels of the training images on the scale 0–255, float64 (3,)."""
    if not isinstance(part, ArrayPart):
        mean, std = torch.tensor(_IMAGENET, dtype=torch.float64)
        return mean, std
    # Whole numbers are counted exactly, whatever the order.
    counts = np.stack([np.bincount(part.pixels[..., c].ravel(), minlength=256) for c in range(3)])
    level = np.arange(256)
    means = (counts * level).sum(axis=1) / counts.sum(axis=1)
    variance = (counts * (level - means[:, None]) ** 2).sum(axis=1) / counts.sum(axis=1)
    return torch.from_numpy(means), torch.from_numpy(np.sqrt(np.maximum(variance, 1e-12)))


def rate_at(step: int, steps_per_epoch: int, recipe: RecipeConfig) -> float:
    """Learning rate of a step: linear warm-up, then steps or half a cosine.

    With ``step`` the rate is constant within an epoch and falls at the beginning of epoch ``milestone ·
    epochs`` (60, 120 and 160 of 200 by default); with ``cosine`` it falls with every step from the end of the
    warm-up to zero.

    Args:
        step: Zero-based optimiser step of the run.
        steps_per_epoch: Steps of an epoch.
        recipe: The recipe.
    """
    peak, rising = recipe.learning_rate, math.ceil(recipe.warmup_epochs * steps_per_epoch)
    if step < rising:
        return peak * (step + 1) / rising
    if recipe.schedule == "cosine":
        falling = recipe.epochs * steps_per_epoch - rising
        return learning_rate_at(step - rising, falling, peak=peak, warmup=0.0)
    epoch = step // steps_per_epoch
    passed = sum(epoch >= round(milestone * recipe.epochs) for milestone in recipe.milestones)
    return peak * float(recipe.gamma**passed)


class ImageLoop:
    """Fits network and criterion to the training part.

    Args:
        network: Images → features, on the CPU.
        criterion: The loss with its head and decision, on the CPU.
        images: The image set.
        config: Augmentation and recipe.
        seed: Seed of order, augmentation and noise.
        device: Where to train.
        folder: Where ``last.ckpt`` goes; None writes none.
        identity: Stored in ``last.ckpt``, to tell whose checkpoint it is.
        on_epoch: Called with the row of ``curves.csv`` after every epoch.
    """

    def __init__(
        self,
        network: nn.Module,
        criterion: Criterion,
        images: ImageData,
        config: ImageJobConfig,
        *,
        seed: int,
        device: torch.device,
        folder: Path | None = None,
        identity: Mapping[str, Any] | None = None,
        on_epoch: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> None:
        recipe = self._recipe = config.recipe
        self._network, self._criterion, self._seed, self._device = network, criterion, seed, device
        self._folder, self._identity, self._on_epoch = folder, identity or {}, on_epoch
        network.to(device)
        criterion.to(device)
        if recipe.channels_last:
            network.to(memory_format=torch.channels_last)
        if recipe.sync_batch_norm and distributed.world_size() > 1:
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        if recipe.compile != "off":
            network.compile(mode=recipe.compile)
        self._open_batches(images, config)
        dtype = getattr(torch, recipe.precision)
        self._amp = torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)
        self._parameters = [*network.parameters(), *criterion.parameters()]
        self._optimizer = torch.optim.SGD(
            self._parameters, recipe.learning_rate, recipe.momentum, weight_decay=recipe.weight_decay,
            nesterov=recipe.nesterov, fused=True,
        )  # fmt: skip
        self._scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "float16")
        self._epoch = self._step = 0
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        self.curves: list[dict[str, Any]] = []
        self._saved_at = time.monotonic()

    def _open_batches(self, images: ImageData, config: ImageJobConfig) -> None:
        data, recipe = config.data, config.recipe
        # Pictures in files get a random resized crop in place of the shift.
        augmented = data if isinstance(images.train, ArrayPart) else replace(data, crop_padding=0)
        mean, std = channel_statistics(images.train)
        augmentation = Augmentation(augmented, mean, std, self._device, recipe.channels_last)

        def batches(part: ImagePart) -> Batches:
            if isinstance(part, ArrayPart):
                return DeviceBatches(part, augmentation, self._device, data.place)
            return PictureBatches(part, augmentation, self._device, data, recipe.loader_workers)

        self._train, self._part = batches(images.train), data.evaluate_on
        validation = None if images.validation is None else batches(images.validation)
        test = None if images.test is None else batches(images.test)
        evaluated = validation if self._part == "validation" else test
        assert evaluated is not None
        self._evaluated, self._fitted = evaluated, validation or self._train
        rows = np.arange(len(self._fitted.y))
        if len(rows) > recipe.decision_images:
            drawn = np.random.default_rng(derive_seed(0, "decision")).permutation(rows)
            rows = np.sort(drawn[: recipe.decision_images])
        self._fitted_rows = rows
        self._count = len(images.train.y)
        self.steps_per_epoch = self._count // recipe.batch_size

    def run(self, until: float = math.inf) -> bool:
        """Trains from the present state on.

        Args:
            until: ``time.monotonic()`` at which to stop after a step and save; rank 0 decides for all.

        Returns:
            Whether the run is finished.

        Raises:
            TrainingError: A loss isn't finite, or a picture can't be decoded.
        """
        self._network.train()
        self._criterion.train()
        while self._epoch < self._recipe.epochs:
            began, first = time.monotonic(), self._step
            self._criterion.start_epoch(self._epoch / self._recipe.epochs)
            order = epoch_order(self._count, self._recipe.batch_size, self._seed, self._epoch)
            for x, y in self._train.training(order, self._seed, self._epoch, first):
                self._take_step(x, y)
                self._step += 1
                if self._step % _CHECK_EVERY == 0:
                    self._check()
                if self._is_over(until) and self._step < len(order):
                    self._save()
                    return False
                self._save_when_due()
            self._check()
            self._close_epoch(began, (self._step - first) * self._recipe.batch_size)
            self._save_when_due()
            if self._epoch < self._recipe.epochs and self._is_over(until):
                self._save()
                return False
        self._network.eval()
        self._criterion.eval()
        return True

    def _take_step(self, x: Tensor, y: Tensor) -> None:
        torch.manual_seed(derive_seed(self._seed, "step", self._epoch, self._step, distributed.rank()))
        step = self._epoch * self.steps_per_epoch + self._step
        for group in self._optimizer.param_groups:
            group["lr"] = rate_at(step, self.steps_per_epoch, self._recipe)
        self._optimizer.zero_grad(set_to_none=True)
        with self._amp:
            z = self._network(x)
        loss: Tensor = self._criterion(z, y)
        # Gradients of all processes are summed: each has the mean over its equal share of the batch.
        mean = loss / distributed.world_size()
        self._scaler.scale(mean).backward()  # type: ignore[no-untyped-call]
        distributed.sum_gradients(self._parameters)
        if self._recipe.gradient_clip:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self._parameters, self._recipe.gradient_clip)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        # Kept on the device: reading it at every step would make the host wait for each.
        self._loss_sum += loss.detach()

    def _check(self) -> None:
        # Over all processes, so that all of them stop.
        if not math.isfinite(float(sum_over_ranks(self._loss_sum))):
            raise TrainingError(
                f"Training stopped at epoch {self._epoch + 1}, by step {self._step}: the loss isn't finite; "
                f"lower recipe.learning_rate (now {self._recipe.learning_rate:g}) or lengthen the warm-up."
            )

    def _close_epoch(self, began: float, images: int) -> None:
        trained_s = time.monotonic() - began
        # Running statistics differ between processes: what is evaluated and saved must not.
        distributed.broadcast_buffers(self._network, self._criterion)
        if self._criterion.needs_epoch_pass:
            # Over the training images as they are, each process with its part of them.
            rows = np.arange(self._count)[distributed.share_of(self._count)]
            self._criterion.end_epoch(self._features(self._train, rows), self._labels(self._train, rows))
        scores = dict.fromkeys(SCORES, math.nan)
        if self._epoch + 1 == self._recipe.epochs or (self._epoch + 1) % self._recipe.evaluate_every == 0:
            scores = self._evaluate()
        row: dict[str, Any] = {
            "epoch": self._epoch + 1,
            "part": self._part,
            "lr": float(self._optimizer.param_groups[0]["lr"]),
            "train_loss": float(sum_over_ranks(self._loss_sum)) / (distributed.world_size() * self._step),
            **scores,
            "images_per_s": images / trained_s,
            "seconds": time.monotonic() - began,
        }
        self.curves.append({name: row[name] for name in _CURVE_COLUMNS})
        self._epoch, self._step = self._epoch + 1, 0
        self._loss_sum.zero_()
        if self._on_epoch is not None:
            self._on_epoch(self.curves[-1])

    def _evaluate(self) -> dict[str, float]:
        if self._recipe.decision == "auto" and self._criterion.fits_decision:
            z = self._gathered(self._fitted, self._fitted_rows)
            self._criterion.fit_decision(z, self._labels(self._fitted, self._fitted_rows))
        y = self._evaluated.y
        return scores_of(self._criterion, self._gathered(self._evaluated, np.arange(len(y))), y)

    def _labels(self, batches: Batches, rows: NDArray[np.int64]) -> Tensor:
        return batches.y[torch.from_numpy(rows)]

    def _gathered(self, batches: Batches, rows: NDArray[np.int64]) -> Tensor:
        """Features of rows in all processes, each of which computes a share."""
        if len(rows) < distributed.world_size():
            return self._features(batches, rows)
        return gather_over_ranks(self._features(batches, rows[distributed.share_of(len(rows))]))

    @torch.no_grad()
    def _features(self, batches: Batches, rows: NDArray[np.int64]) -> Tensor:
        """Features (n, E), float32, of rows in evaluation mode."""
        training = self._network.training
        self._network.eval()
        try:
            parts = []
            for x in batches.plain(rows, _EVALUATION_BATCH):
                with self._amp:
                    # A copy: a captured CUDA graph writes its next output into the same place.
                    parts.append(self._network(x).float().clone())
        finally:
            self._network.train(training)
        return torch.cat(parts)

    def _is_over(self, until: float) -> bool:
        return until < math.inf and distributed.any_rank(time.monotonic() >= until, self._device)

    def _save_when_due(self) -> None:
        if time.monotonic() - self._saved_at >= self._recipe.checkpoint_interval_s:
            self._save()

    def _save(self) -> None:
        # Where the sum isn't finite the next check says so; a checkpoint from before is worth more.
        if self._folder is None or distributed.rank() > 0 or not math.isfinite(float(self._loss_sum)):
            return
        write_resume(self._folder, self._identity, self.state_dict())
        self._saved_at = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """Everything that the remaining steps depend on."""
        return {
            "epoch": self._epoch,
            "step": self._step,
            "loss_sum": float(self._loss_sum),
            "curves": self.curves,
            "network": self._network.state_dict(),
            "criterion": self._criterion.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores ``state_dict()``."""
        self._epoch, self._step, self.curves = state["epoch"], state["step"], state["curves"]
        self._loss_sum.fill_(state["loss_sum"])
        self._network.load_state_dict(state["network"])
        self._criterion.load_state_dict(state["criterion"])
        self._optimizer.load_state_dict(state["optimizer"])
        if self._scaler.is_enabled():
            self._scaler.load_state_dict(state["scaler"])


@torch.no_grad()
def scores_of(criterion: Criterion, z: Tensor, y: Tensor) -> dict[str, float]:
    """Scores by the names of ``SCORES``.

    Top-1 and top-5 are shares of the images whose class is the most probable one, or among the five most
    probable; macro-F1 is over all classes; CMI, Γ (pairwise) and NCMI are those of the class probabilities
    with the class means of the same probabilities, the same for all losses (``metrics.information_metrics``).
    ``top1_nearest`` is NCMI's top-1 by the nearest centroid, the paper's rule, whatever the fitted decision
    says.

    Args:
        criterion: Loss and decision; its mode is as before afterwards.
        z: Features (n, E).
        y: Class indices (n,).
    """
    training = criterion.training
    criterion.eval()
    try:
        # In parts: some losses compare all images of a batch with each other.
        sums = [
            float(criterion(part, target)) * len(target)
            for part, target in zip(*(torch.split(x, _EVALUATION_BATCH) for x in (z, y)), strict=True)
        ]
        nearest = math.nan
        if isinstance(criterion, NCMILoss):
            nearest = float((criterion.distances(z).argmin(dim=1) == y).double().mean())
    finally:
        criterion.train(training)
    probabilities = probabilities_of(criterion, z)
    truth = y.cpu().numpy()
    macro_f1, _ = f1_and_recall(truth, probabilities.argmax(axis=1), criterion.num_classes)
    return {
        "loss": sum(sums) / len(y),
        "top1": top_share(probabilities, truth, 1),
        "top5": top_share(probabilities, truth, 5),
        "macro_f1": macro_f1,
        **information_metrics(probabilities, truth),
        "top1_nearest": nearest,
    }


def top_share(probabilities: NDArray[np.float64], y: NDArray[np.int64], k: int) -> float:
    """Share of the rows whose class is among the k most probable; a tie goes to the class that comes first.

    Args:
        probabilities: (n, C).
        y: Class indices (n,).
        k: How many.
    """
    own = probabilities[np.arange(len(y)), y][:, None]
    columns = np.arange(probabilities.shape[1])[None, :]
    before = (probabilities > own) | ((probabilities == own) & (columns < y[:, None]))
    return float((before.sum(axis=1) < k).mean())
