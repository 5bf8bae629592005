"""The training loop of images: a state that can be saved after any step and continued from there.

Order, augmentation and the noise of a step (dropout, stochastic depth) are pure functions of seed, epoch and
step: the checkpoint holds no state of any random generator, and on CPU a resumed run equals an undisturbed
one bit for bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from wsi_ncmi.core.errors import TrainingError
from wsi_ncmi.losses.base import Criterion
from wsi_ncmi.losses.running_statistics import sum_over_ranks
from wsi_ncmi.training.resume import write_resume
from wsi_ncmi.training.seeding import derive_seed
from wsi_ncmi.vision.batches import Batches, epoch_order
from wsi_ncmi.vision.config import RecipeConfig
from wsi_ncmi.vision.ranks import Ranks, share_buffers
from wsi_ncmi.vision.schedule import rate_at
from wsi_ncmi.vision.scores import SCORES, features_of, scores_of

__all__ = ["CURVE_COLUMNS", "ImageLoop", "Parts"]

CURVE_COLUMNS = ("epoch", "part", "lr", "train_loss", *SCORES, "images_per_s", "seconds")
_CHECK_EVERY = 50
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Parts:
    """The batches of a run.

    Args:
        train: What is learned from.
        evaluated: What every epoch is scored on.
        evaluated_name: ``test`` or ``validation``.
        fitted: What the decision is fitted on, and its rows.
    """

    def __init__(
        self,
        train: Batches,
        evaluated: Batches,
        evaluated_name: str,
        fitted: tuple[Batches, NDArray[np.int64]],
    ) -> None:
        self.train, self.evaluated, self.evaluated_name = train, evaluated, evaluated_name
        self.fitted, self.fitted_rows = fitted


class _Objective(nn.Module):
    """Network and loss in one module, so that data parallelism averages the gradients of both."""

    def __init__(self, network: nn.Module, criterion: Criterion, amp: torch.autocast) -> None:
        super().__init__()
        self.network, self.criterion = network, criterion
        self._amp = amp

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        with self._amp:
            z = self.network(x)
        loss: Tensor = self.criterion(z, y)
        return loss


class ImageLoop:
    """Fits network and criterion to the training part.

    Args:
        network: Images → features, on its device.
        criterion: The loss with its head and decision, on the same device.
        parts: The batches.
        recipe: How to train.
        seed: Seed of order, augmentation and noise.
        ranks: Which process this is.
        folder: Where ``last.ckpt`` goes; None writes none.
        identity: Stored in ``last.ckpt``, to tell whose checkpoint it is.
        on_epoch: Called with the row of ``curves.csv`` after every epoch.
    """

    def __init__(
        self,
        network: nn.Module,
        criterion: Criterion,
        parts: Parts,
        *,
        recipe: RecipeConfig,
        seed: int,
        ranks: Ranks,
        folder: Path | None = None,
        identity: Mapping[str, Any] | None = None,
        on_epoch: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> None:
        self._network, self._criterion, self._parts = network, criterion, parts
        self._recipe, self._seed, self._ranks = recipe, seed, ranks
        self._folder, self._identity, self._on_epoch = folder, identity or {}, on_epoch
        device = ranks.device
        dtype = _DTYPES[recipe.precision]
        self._amp = torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)
        self._parameters = [*network.parameters(), *criterion.parameters()]
        self._optimizer = torch.optim.SGD(
            self._parameters,
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
            fused=True,
        )
        self._scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "float16")
        objective: nn.Module = _Objective(network, criterion, self._amp)
        if ranks.world > 1:
            objective = DistributedDataParallel(
                objective, device_ids=[device.index] if device.type == "cuda" else None
            )
        self._objective = objective
        self._count = len(parts.train.y)
        self.steps_per_epoch = self._count // recipe.batch_size
        self._epoch = self._step = 0
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        self.curves: list[dict[str, Any]] = []
        self._saved_at = time.monotonic()

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return self._epoch

    def run(self, until: float = math.inf) -> bool:
        """Trains from the present state on.

        Args:
            until: ``time.monotonic()`` at which to stop after a step and save; rank 0 decides for all.

        Returns:
            Whether the run is finished.

        Raises:
            TrainingError: A loss isn't finite, or a picture can't be decoded.
        """
        self._objective.train()
        while self._epoch < self._recipe.epochs:
            began, first = time.monotonic(), self._step
            order = epoch_order(self._count, self._recipe.batch_size, self._seed, self._epoch)
            for x, y in self._parts.train.training(order, self._seed, self._epoch, first):
                self._take_step(x, y)
                self._step += 1
                if self._step % _CHECK_EVERY == 0:
                    self._check()
                if self._is_over(until) and self._step < len(order):
                    self._save()
                    return False
                self._save_when_due()
            self._check()
            trained = time.monotonic() - began
            self._close_epoch(trained, (self._step - first) * self._recipe.batch_size, began)
            self._save_when_due()
            if self._epoch < self._recipe.epochs and self._is_over(until):
                self._save()
                return False
        self._objective.eval()
        return True

    def _take_step(self, x: Tensor, y: Tensor) -> None:
        recipe, seed = self._recipe, self._seed
        torch.manual_seed(derive_seed(seed, "step", self._epoch, self._step, self._ranks.rank))
        rate = rate_at(self._epoch * self.steps_per_epoch + self._step, self.steps_per_epoch, recipe)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad(set_to_none=True)
        loss: Tensor = self._objective(x, y)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if recipe.gradient_clip:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self._parameters, recipe.gradient_clip)
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

    def _close_epoch(self, trained_s: float, images: int, began: float) -> None:
        share_buffers(self._objective, self._ranks)
        rate = float(self._optimizer.param_groups[0]["lr"])
        if self._criterion.needs_epoch_pass:
            self._end_epoch()
        last = self._epoch + 1 == self._recipe.epochs
        if last or (self._epoch + 1) % self._recipe.evaluate_every == 0:
            scores = self._evaluate()
        else:
            scores = dict.fromkeys(SCORES, math.nan)
        row: dict[str, Any] = {
            "epoch": self._epoch + 1,
            "part": self._parts.evaluated_name,
            "lr": rate,
            "train_loss": float(sum_over_ranks(self._loss_sum)) / (self._ranks.world * self._step),
            **scores,
            "images_per_s": images / trained_s,
            "seconds": time.monotonic() - began,
        }
        self.curves.append({name: row[name] for name in CURVE_COLUMNS})
        self._epoch, self._step = self._epoch + 1, 0
        self._loss_sum.zero_()
        if self._on_epoch is not None:
            self._on_epoch(self.curves[-1])

    def _end_epoch(self) -> None:
        """The closed-form step over the training images as they are, each process with its part of them."""
        train = self._parts.train
        rows = np.arange(self._count)[self._ranks.part(self._count)]
        alone = Ranks(0, 1, self._ranks.device)
        z = features_of(self._network, train, rows, alone, self._amp)
        self._criterion.end_epoch(z, train.y[torch.from_numpy(rows)])

    def _evaluate(self) -> dict[str, float]:
        parts = self._parts
        if self._recipe.decision == "auto" and self._criterion.fits_decision:
            rows = parts.fitted_rows
            z = features_of(self._network, parts.fitted, rows, self._ranks, self._amp)
            self._criterion.fit_decision(z, parts.fitted.y[torch.from_numpy(rows)])
        everything = np.arange(len(parts.evaluated.y))
        z = features_of(self._network, parts.evaluated, everything, self._ranks, self._amp)
        return scores_of(self._criterion, z, parts.evaluated.y)

    def _is_over(self, until: float) -> bool:
        if until == math.inf:
            return False
        over = time.monotonic() >= until
        if self._ranks.world == 1:
            return over
        flag = torch.tensor([float(over)], device=self._ranks.device)
        torch.distributed.broadcast(flag, 0)
        return bool(flag.item())

    def _save_when_due(self) -> None:
        if time.monotonic() - self._saved_at >= self._recipe.checkpoint_interval_s:
            self._save()

    def _save(self) -> None:
        if self._folder is None or not self._ranks.is_first:
            return
        if not math.isfinite(float(self._loss_sum)):
            return  # The next check says so; a checkpoint from before is worth more.
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
