"""The training loop: a state that can be saved after any step and continued from there, bit for bit."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wsi_ncmi.errors import TrainingError
from wsi_ncmi.losses.base import Criterion
from wsi_ncmi.mil.base import Aggregator
from wsi_ncmi.training.averaging import WeightAverage
from wsi_ncmi.training.batches import BagCache
from wsi_ncmi.training.options import TrainingOptions
from wsi_ncmi.training.resume import write_resume
from wsi_ncmi.training.sampling import EpochSampler, draw_instances
from wsi_ncmi.training.schedule import learning_rate_at
from wsi_ncmi.training.scoring import embed, validation_scores

__all__ = ["CURVE_COLUMNS", "LabelledSlides", "TrainingLoop"]

CURVE_COLUMNS = (
    "epoch", "lr", "train_loss", "val_loss", "val_macro_f1", "val_balanced_accuracy",
    "val_cmi", "val_gamma", "val_ncmi", "seconds",
)  # fmt: skip
_SHOWN_SLIDES = 16


@dataclass(frozen=True)
class LabelledSlides:
    """One part of a fold: slide ids and their class indices, int64 (n,)."""

    slide_ids: tuple[str, ...]
    y: NDArray[np.int64]


class TrainingLoop:
    """Fits aggregator and criterion to the training part; the validation part chooses the epoch to keep.

    Args:
        aggregator: The MIL model, on its device.
        criterion: The loss with its head, on the same device.
        cache: The bags.
        train: Bags to learn from.
        validation: Bags that choose the epoch.
        options: How to train.
        seed: Seed of order and tile draws.
        folder: Where ``last.ckpt`` goes; None writes none.
        identity: Stored in ``last.ckpt``, to tell whose checkpoint it is.
        on_epoch: Called with the row of ``curves.csv`` after every epoch.
    """

    def __init__(
        self,
        aggregator: Aggregator,
        criterion: Criterion,
        cache: BagCache,
        *,
        train: LabelledSlides,
        validation: LabelledSlides,
        options: TrainingOptions,
        seed: int,
        folder: Path | None,
        identity: Mapping[str, Any],
        on_epoch: Callable[[Mapping[str, float]], None] | None = None,
    ) -> None:
        self._aggregator, self._criterion, self._cache = aggregator, criterion, cache
        self._train, self._validation = train, validation
        self._options, self._seed = options, seed
        self._folder, self._identity, self._on_epoch = folder, identity, on_epoch
        self._device = next(aggregator.parameters()).device
        self._train_y = torch.from_numpy(train.y).to(self._device)
        self._validation_y = torch.from_numpy(validation.y).to(self._device)
        self._lengths = cache.lengths(train.slide_ids)
        self._parameters = [*aggregator.parameters(), *criterion.parameters()]
        self._optimizer = _optimizer(self._parameters, options)
        self._average = WeightAverage(self._parameters, options.ema)
        self._sampler = EpochSampler(train.y, batch_size=options.batch_size, mode=options.sampler, seed=seed)
        self._epoch = 0
        self._step = 0
        self._loss_sum = 0.0
        self._best: dict[str, Any] = {}
        self.curves: list[dict[str, float]] = []
        self._saved_at = self._epoch_began = time.monotonic()

    @property
    def best_epoch(self) -> int:
        """The epoch (from 1) whose weights are kept."""
        return int(self._best["epoch"])

    def run(self) -> None:
        """Trains from the present state to the end and leaves the best weights in the modules.

        Raises:
            TrainingError: A loss or gradient isn't finite.
        """
        self._aggregator.train()
        self._criterion.train()
        while not self._finished():
            self._epoch_began = time.monotonic()
            batches = self._sampler.batches(self._epoch)
            while self._step < len(batches):
                self._loss_sum += self._take_step(batches[self._step]) * len(batches[self._step])
                self._step += 1
                self._save_when_due()
            self._close_epoch()
            self._save_when_due()
        self._aggregator.load_state_dict(self._best["aggregator"])
        self._criterion.load_state_dict(self._best["criterion"])
        self._aggregator.eval()
        self._criterion.eval()

    def _finished(self) -> bool:
        patience = self._options.patience
        if patience is not None and self._best and self._epoch - self.best_epoch >= patience:
            return True
        return self._epoch >= self._options.epochs

    def _take_step(self, chosen: NDArray[np.int64]) -> float:
        options = self._options
        slide_ids = [self._train.slide_ids[i] for i in chosen]
        rows = None
        if options.max_instances is not None:
            rows = draw_instances(
                self._lengths[chosen], options.max_instances, self._seed, self._epoch, self._step
            )
        batch = self._cache.pack(slide_ids, rows).to(self._device)
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate()
        self._optimizer.zero_grad(set_to_none=True)
        y = self._train_y[torch.from_numpy(chosen)]
        output = self._aggregator(batch, y)
        loss: Tensor = self._criterion(output.embedding, y)
        for term in output.auxiliary.values():
            loss = loss + term
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self._parameters, options.gradient_clip or math.inf)
        value, length = float(loss.detach()), float(norm)
        if not (math.isfinite(value) and math.isfinite(length)):
            self._stop_on_fault(value, length, slide_ids)
        self._optimizer.step()
        self._average.update()
        return value

    def _stop_on_fault(self, loss: float, norm: float, slide_ids: Sequence[str]) -> None:
        shown = ", ".join(slide_ids[:_SHOWN_SLIDES]) + (" …" if len(slide_ids) > _SHOWN_SLIDES else "")
        raise TrainingError(
            f"Training stopped at epoch {self._epoch + 1}, step {self._step + 1}: the loss is {loss:g} and "
            f"the gradient's norm {norm:g} on the slides {shown}; check their features, or lower "
            f"training.learning_rate (now {self._options.learning_rate:g})."
        )

    def _rate(self) -> float:
        per_epoch = self._sampler.steps_per_epoch
        return learning_rate_at(
            self._epoch * per_epoch + self._step,
            self._options.epochs * per_epoch,
            peak=self._options.learning_rate,
            warmup=self._options.warmup,
        )

    def _close_epoch(self) -> None:
        if self._criterion.needs_epoch_pass:
            z = embed(self._aggregator, self._cache, self._train.slide_ids, self._device)
            self._criterion.end_epoch(z, self._train_y)
        rate = float(self._optimizer.param_groups[0]["lr"])
        with self._average.lent():
            z = embed(self._aggregator, self._cache, self._validation.slide_ids, self._device)
            scores = validation_scores(self._criterion, z, self._validation_y)
            rank = _rank(scores, self._options)
            if not self._best or rank > self._best["rank"]:
                self._best = {
                    "epoch": self._epoch + 1,
                    "rank": rank,
                    "aggregator": copy.deepcopy(self._aggregator.state_dict()),
                    "criterion": copy.deepcopy(self._criterion.state_dict()),
                }
        row = {
            "epoch": self._epoch + 1,
            "lr": rate,
            "train_loss": self._loss_sum / len(self._train.slide_ids),
            **scores,
            "seconds": time.monotonic() - self._epoch_began,
        }
        self.curves.append({name: row[name] for name in CURVE_COLUMNS})
        self._epoch, self._step, self._loss_sum = self._epoch + 1, 0, 0.0
        if self._on_epoch is not None:
            self._on_epoch(self.curves[-1])

    def _save_when_due(self) -> None:
        if self._folder is None:
            return
        if time.monotonic() - self._saved_at >= self._options.checkpoint_interval_s:
            write_resume(self._folder, self._identity, self.state_dict())
            self._saved_at = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """Everything that the remaining steps depend on."""
        return {
            "epoch": self._epoch,
            "step": self._step,
            "loss_sum": self._loss_sum,
            "curves": self.curves,
            "best": self._best,
            "aggregator": self._aggregator.state_dict(),
            "criterion": self._criterion.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "average": self._average.state_dict(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self._device) if self._device.type == "cuda" else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores ``state_dict()``."""
        self._epoch, self._step = state["epoch"], state["step"]
        self._loss_sum, self.curves, self._best = state["loss_sum"], state["curves"], state["best"]
        self._aggregator.load_state_dict(state["aggregator"])
        self._criterion.load_state_dict(state["criterion"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._average.load_state_dict(state["average"])
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] is not None and self._device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"], self._device)


def _optimizer(parameters: Sequence[nn.Parameter], options: TrainingOptions) -> torch.optim.Optimizer:
    # Decay shrinks matrices; on biases and scales it only moves the operating point.
    matrices = [p for p in parameters if p.ndim >= 2]
    vectors = [p for p in parameters if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": options.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    # One kernel for all tensors: on small models the optimiser's own overhead is a third of a step otherwise.
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=options.learning_rate, fused=True
    )


def _rank(scores: Mapping[str, float], options: TrainingOptions) -> list[float]:
    loss = scores["val_loss"] if math.isfinite(scores["val_loss"]) else math.inf
    if options.selection == "loss":
        return [-loss]
    return [scores[f"val_{options.selection}"], -loss]
