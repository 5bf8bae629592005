"""Runs of experiments, done in this process or in a pool of processes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from wsi_ncmi.cohorts import BagSource
from wsi_ncmi.core.errors import TrainingError
from wsi_ncmi.core.progress import ProgressReporter
from wsi_ncmi.parallel import keep_large_buffers, run_items
from wsi_ncmi.parallel import process_group as distributed
from wsi_ncmi.training.batches import BagCache
from wsi_ncmi.training.data import TrainingData
from wsi_ncmi.training.runs import Run, RunFailure, do_run

__all__ = ["run_all"]

_LOG = logging.getLogger(__name__)

Numbered = tuple[int, Run]
"""A run with the position of its experiment."""


class _RunsOfProcess:
    """Does runs one after the other. Bags in memory are those of the present features alone."""

    def __init__(self, data: Sequence[TrainingData], share: int) -> None:
        # Batches come and go by the step; every fresh page of theirs would be cleared by the system first.
        keep_large_buffers()
        self._data, self._share = data, share
        self._cache: BagCache | None = None

    def _cache_of(self, source: BagSource, cache_mib: int) -> BagCache:
        if self._cache is None or not _same_bags(self._cache.source, source):
            self._cache = None  # the old bags go before the new ones come
            self._cache = BagCache(source, cache_mib * 2**20 // self._share)
        return self._cache

    def __call__(self, task: Numbered, callback: Callable[[Any], None]) -> None:
        number, run = task
        data = self._data[number]
        do_run(run, self._cache_of(data.source, run.config.training.cache_mib), data, callback)


def _same_bags(one: BagSource, other: BagSource) -> bool:
    """Whether two experiments read the same bags, also where each has opened them for itself."""
    a, b = ((type(s), s.path, s.width, s.encoder, s.slide_ids) for s in (one, other))
    return one is other or a == b


def run_all(
    todo: Sequence[Numbered],
    data: Sequence[TrainingData],
    *,
    workers: int,
    gpus: Sequence[str],
    progress: ProgressReporter,
) -> Iterator[tuple[int, RunFailure]]:
    """Does the runs and yields those that have no result.

    Args:
        todo: The runs, each with the position of its experiment.
        data: Bags, labels and folds of each experiment.
        workers: Processes.
        gpus: Names of GPUs that the processes are dealt over.
        progress: Told about every epoch.

    Yields:
        Position of the experiment and the failure.
    """
    counted = [0] * len(todo)
    ended = 0
    total = sum(run.config.training.epochs for _, run in todo)
    with progress.task("training", total=total, unit="epochs") as task:

        def on_epoch(index: int, row: Mapping[str, float]) -> None:
            run = todo[index][1]
            epoch = int(row["epoch"])
            # A resumed run tells only of its remaining epochs, a retried one may tell of some again.
            gain, counted[index] = max(0, epoch - counted[index]), max(epoch, counted[index])
            of = f"{run.config.model.name} " if len(data) > 1 else ""
            task.advance(
                gain,
                f"run {ended + 1}/{len(todo)}: {of}{run.name} fold {run.fold} seed {run.seed} "
                f"epoch {epoch}, validation macro-F1 {row['val_macro_f1']:.3f}",
            )

        share = min(workers, max(1, len(todo)))
        # Processes of torchrun don't know of an error in another one and would wait for it: it ends them all.
        catch = TrainingError if distributed.world_size() > 1 else Exception
        outcomes = run_items(
            todo, partial(_RunsOfProcess, data, share), workers=workers, on_news=on_epoch, gpus=gpus,
            catch=catch, advice="use fewer workers or a smaller training.cache_mib",
        )  # fmt: skip
        for outcome in outcomes:
            ended += 1
            number, run = todo[outcome.index]
            if (rest := run.config.training.epochs - counted[outcome.index]) > 0:  # stopped early, or failed
                task.advance(rest)
            if outcome.problem:
                _LOG.warning("%s fold %d seed %d: %s", run.name, run.fold, run.seed, outcome.problem)
                yield number, RunFailure(run.name, run.fold, run.seed, outcome.problem, outcome.details)
