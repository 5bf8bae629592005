"""The training loop: a state that can be saved after any step and continued from there, bit for bit."""

import contextlib
import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsi_ncmi.core.errors import InputError, TrainingError
from wsi_ncmi.losses.base import Criterion
from wsi_ncmi.losses.running_statistics import gather_over_ranks, sum_over_ranks
from wsi_ncmi.mil.base import Aggregator, BagBatch
from wsi_ncmi.parallel import process_group as distributed
from wsi_ncmi.training.bags import BagCache, prefetch
from wsi_ncmi.training.config import RunConfig
from wsi_ncmi.training.optim import (
    FusedAdamW,
    WeightAverage,
    autocast_of,
    clip_gradients,
    learning_rate_at,
    rank_of,
)
from wsi_ncmi.training.resume import write_resume
from wsi_ncmi.training.sampling import BagLoader, LabelledSlides
from wsi_ncmi.training.scoring import embed, validation_scores

CURVE_COLUMNS = (
    "epoch", "lr", "train_loss", "val_loss", "val_macro_f1", "val_balanced_accuracy",
    "val_cmi", "val_gamma", "val_ncmi", "seconds",
)  # fmt: skip
_SHOWN_SLIDES = 16


class TrainingLoop:
    """Fits aggregator and criterion to the training part; the validation part chooses the epoch to keep.

    Args:
        aggregator: The MIL model, on its device.
        criterion: The loss with its head, on the same device.
        cache: The bags.
        train: Bags to learn from.
        validation: Bags that choose the epoch.
        config: Optimisation, and the seed of order and tile draws.
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
        config: RunConfig,
        folder: Path | None = None,
        identity: Mapping[str, Any] | None = None,
        on_epoch: Callable[[Mapping[str, float]], None] | None = None,
    ) -> None:
        self._aggregator, self._criterion, self._cache = aggregator, criterion, cache
        self._train, self._validation = train, validation
        options = self._options = config.training
        self._peak_rate = options.learning_rate * config.model.rate_factor
        self._folder, self._identity, self._on_epoch = folder, identity or {}, on_epoch
        self._device = aggregator.input_mean.device
        self._train_y = torch.from_numpy(train.y).to(self._device)
        self._validation_y = torch.from_numpy(validation.y).to(self._device)
        self._bags = BagLoader(cache, train, options, config.seed)
        self._parameters = [*aggregator.parameters(), *criterion.parameters()]
        self._optimizer = FusedAdamW(self._parameters, options)
        self._average = WeightAverage(self._parameters, options.ema)
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=options.precision == "fp16")
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
            self._take_steps()
            self._close_epoch()
            self._save_when_due()
        self._aggregator.load_state_dict(self._best["aggregator"])
        self._criterion.load_state_dict(self._best["criterion"])
        self._aggregator.eval()
        self._criterion.eval()

    def _take_steps(self) -> None:
        """The remaining steps of the present epoch."""
        self._criterion.start_epoch(self._epoch / self._options.epochs)
        batches = self._bags.of_epoch(self._epoch)
        reads = self._bags.reads(batches, self._epoch, self._step)
        with contextlib.closing(prefetch(reads, self._bags.prefetch_depth(self._device))) as ready:
            while self._step < len(batches):
                chosen = batches[self._step]
                self._loss_sum += self._take_step(chosen, ready) * len(chosen)
                self._step += 1
                self._save_when_due()

    def _finished(self) -> bool:
        patience = self._options.patience
        if patience is not None and self._best and self._epoch - self.best_epoch >= patience:
            return True
        return self._epoch >= self._options.epochs

    def _take_step(self, chosen: NDArray[np.int64], ready: Iterator[BagBatch]) -> float:
        options = self._options
        self._optimizer.learning_rate = self._rate()
        self._optimizer.zero_grad()
        value = 0.0
        for share in self._bags.shares(chosen):
            batch = next(ready).to(self._device)
            y = self._train_y[torch.from_numpy(chosen[share])]
            with autocast_of(options.precision, self._device):
                output = self._aggregator(batch, y)
                loss: Tensor = self._criterion(output.embedding, y)
            for term in output.auxiliary.values():
                loss = loss + term
            if len(share) < len(chosen):
                loss = loss * (len(share) / len(chosen))
            self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            value += float(loss.detach())
        if distributed.world_size() > 1:
            value = float(sum_over_ranks(torch.tensor(value, device=self._device)))
            distributed.sum_gradients(self._parameters)
        if self._scaler.is_enabled():
            self._scaler.unscale_(self._optimizer)  # type: ignore[arg-type]
        length = clip_gradients(self._parameters, options.gradient_clip)
        if not (math.isfinite(value) and (math.isfinite(length) or self._scale_can_fall())):
            self._stop_on_fault(value, length, [self._train.slide_ids[i] for i in chosen])
        self._scaler.step(self._optimizer)  # type: ignore[arg-type]
        self._scaler.update()
        self._average.update()
        return value

    def _scale_can_fall(self) -> bool:
        """A float16 gradient that overflows is left out and the loss scaled less, down to not at all."""
        return self._scaler.is_enabled() and self._scaler.get_scale() > 1.0

    def _stop_on_fault(self, loss: float, norm: float, slide_ids: Sequence[str]) -> None:
        shown = ", ".join(slide_ids[:_SHOWN_SLIDES]) + (" …" if len(slide_ids) > _SHOWN_SLIDES else "")
        raise TrainingError(
            f"Training stopped at epoch {self._epoch + 1}, step {self._step + 1}: the loss is {loss:g} and "
            f"the gradient's norm {norm:g} on the slides {shown}; check their features, or lower "
            f"training.learning_rate (now {self._options.learning_rate:g})."
        )

    def _rate(self) -> float:
        per_epoch = self._bags.steps_per_epoch
        return learning_rate_at(
            self._epoch * per_epoch + self._step,
            self._options.epochs * per_epoch,
            peak=self._peak_rate,
            warmup=self._options.warmup,
        )

    def _close_epoch(self) -> None:
        distributed.broadcast_buffers(self._aggregator, self._criterion)
        if self._criterion.needs_epoch_pass:
            z = self._embedded(self._train.slide_ids)
            self._criterion.end_epoch(z, self._train_y)
        rate = self._optimizer.learning_rate
        with self._average.average_parameters():
            z = self._embedded(self._validation.slide_ids)
            scores = validation_scores(self._criterion, z, self._validation_y)
            rank = rank_of(scores, self._options)
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

    def _embedded(self, slide_ids: Sequence[str]) -> Tensor:
        """Embeddings of whole bags (n, E); each process makes a share of them."""
        mine = slide_ids[distributed.share_of(len(slide_ids))]
        if mine:
            z = embed(self._aggregator, self._cache, mine, self._device)
        else:
            z = torch.zeros(0, self._aggregator.embedding_width, device=self._device)
        return gather_over_ranks(z)

    def _save_when_due(self) -> None:
        if self._folder is None:
            return
        due = time.monotonic() - self._saved_at >= self._options.checkpoint_interval_s
        if distributed.any_rank(due, self._device):
            state = self.state_dict()
            if distributed.rank() == 0:
                write_resume(self._folder, self._identity, state)
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
            "scaler": self._scaler.state_dict(),
            "rng": distributed.gather_objects(torch.get_rng_state()),
            "cuda_rng": (
                distributed.gather_objects(torch.cuda.get_rng_state(self._device))
                if self._device.type == "cuda"
                else []
            ),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores ``state_dict()``.

        Raises:
            InputError: It was saved by another number of processes.
        """
        place, size = distributed.rank(), distributed.world_size()
        if len(state["rng"]) != size:
            raise InputError(
                f"The run in {self._folder} was begun with {len(state['rng'])} processes, these are {size}: "
                "go on with as many, or remove its checkpoint to start it again."
            )
        self._epoch, self._step = state["epoch"], state["step"]
        self._loss_sum, self.curves, self._best = state["loss_sum"], state["curves"], state["best"]
        self._aggregator.load_state_dict(state["aggregator"])
        self._criterion.load_state_dict(state["criterion"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._average.load_state_dict(state["average"])
        self._scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["rng"][place])
        if state["cuda_rng"] and self._device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"][place], self._device)
