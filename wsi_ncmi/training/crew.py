"""Who does the runs: this process, or a crew of processes that keeps every core busy until the last run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from wsi_ncmi.cohorts import BagSource, Cohort, Splits, open_bag_source
from wsi_ncmi.core.errors import TrainingError
from wsi_ncmi.core.progress import ProgressReporter
from wsi_ncmi.mil import ModelConfig
from wsi_ncmi.parallel import process_group as distributed
from wsi_ncmi.parallel import run_items
from wsi_ncmi.training.batches import BagCache
from wsi_ncmi.training.config import TrainingConfig
from wsi_ncmi.training.runs import Run, RunContext, RunFailure, do_run

__all__ = ["Opening", "carry_out"]

_LOG = logging.getLogger(__name__)

Numbered = tuple[int, Run]
"""A run with the position of its experiment."""


@dataclass(frozen=True)
class Opening:
    """What a process needs to open an experiment; picklable, no features travel along.

    Attributes:
        source: An opened source, or what ``open_bag_source`` takes.
        cohort: Labels.
        splits: Folds.
        model: Aggregator.
        training: How to train, with the threads that a run has here.
        encoder: What made the features.
    """

    source: BagSource | Path
    cohort: Cohort
    splits: Splits
    model: ModelConfig
    training: TrainingConfig
    encoder: Mapping[str, Any]

    def cache(self, budget: int) -> BagCache:
        """A fresh cache of the bags, of ``budget`` bytes."""
        source = open_bag_source(self.source) if isinstance(self.source, Path) else self.source
        return BagCache(source, budget)

    def context(self, budget: int, cache: BagCache | None = None) -> RunContext:
        """What the experiment's runs share, with a cache of its own unless one is given."""
        bags = cache if cache is not None else self.cache(budget)
        return RunContext(bags, self.cohort, self.splits, self.model, self.training, self.encoder)


class _RunsOfProcess:
    """What a process does with a run. Bags in memory are those of the present features alone."""

    def __init__(
        self, openings: Sequence[Opening], share: int, on_start: Callable[[], object] | None
    ) -> None:
        if on_start is not None:
            on_start()
        self._openings, self._share = openings, share
        self._number = -1
        self._context: RunContext | None = None

    def context(self, number: int) -> RunContext:
        opening = self._openings[number]
        if self._context is None or number != self._number:
            cache = None
            if self._context is not None and _same_bags(opening, self._openings[self._number]):
                cache = self._context.cache
            self._context = None  # the old bags go before the new ones come
            self._context = opening.context(opening.training.cache_mib * 2**20 // self._share, cache)
            self._number = number
        return self._context

    def __call__(self, task: Numbered, tell: Callable[[Any], None]) -> None:
        number, run = task
        do_run(run, self.context(number), tell)


def _same_bags(one: Opening, other: Opening) -> bool:
    """Whether two experiments read the same bags, also where each has opened them for itself."""
    a, b = one.source, other.source
    if isinstance(a, Path) or isinstance(b, Path):
        return a == b
    return a is b or (type(a), a.path, a.width, a.encoder, a.slide_ids) == (
        type(b),
        b.path,
        b.width,
        b.encoder,
        b.slide_ids,
    )


def carry_out(
    todo: Sequence[Numbered],
    openings: Sequence[Opening],
    epochs: Sequence[int],
    *,
    workers: int,
    gpus: Sequence[str],
    on_start: Callable[[], object] | None,
    progress: ProgressReporter,
) -> Iterator[tuple[int, RunFailure]]:
    """Does the runs and tells of those that have no result.

    Args:
        todo: The runs, each with the position of its experiment.
        openings: The experiments.
        epochs: Epochs of a run of each experiment.
        workers: Processes.
        gpus: Names of GPUs that the processes are dealt over.
        on_start: Called in each process before its first run; picklable.
        progress: Told about every epoch.

    Yields:
        Position of the experiment and the failure.
    """
    counted = [0] * len(todo)
    ended = 0
    total = sum(epochs[number] for number, _ in todo)
    with progress.task("training", total=total, unit="epochs") as task:

        def on_news(index: int, row: Mapping[str, float]) -> None:
            number, run = todo[index]
            epoch = int(row["epoch"])
            # A resumed run tells only of its remaining epochs, a retried one may tell of some again.
            gain, counted[index] = max(0, epoch - counted[index]), max(epoch, counted[index])
            of = f"{openings[number].model.name} " if len(openings) > 1 else ""
            task.advance(
                gain,
                f"run {ended + 1}/{len(todo)}: {of}{run.name} fold {run.fold} seed {run.seed} "
                f"epoch {epoch}, validation macro-F1 {row['val_macro_f1']:.3f}",
            )

        share = min(workers, max(1, len(todo)))
        # Processes of torchrun don't know of an error in another one and would wait for it: it ends them all.
        catch = TrainingError if distributed.world_size() > 1 else Exception
        outcomes = run_items(
            todo, partial(_RunsOfProcess, openings, share, on_start), workers=workers, on_news=on_news,
            gpus=gpus, catch=catch, advice="use fewer workers or a smaller training.cache_mib",
        )  # fmt: skip
        for outcome in outcomes:
            ended += 1
            number, run = todo[outcome.index]
            if counted[outcome.index] < epochs[number]:  # stopped early, or failed
                task.advance(epochs[number] - counted[outcome.index])
            if outcome.problem:
                _LOG.warning("%s fold %d seed %d: %s", run.name, run.fold, run.seed, outcome.problem)
                yield number, RunFailure(run.name, run.fold, run.seed, outcome.problem, outcome.details)
