"""Experiments (folds × seeds × losses of one model), one or several at a time, in one pool of processes.

Every loss has the same folds, the same seeds and the same initial aggregators.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from wsi_ncmi.cohorts import BagSource, write_splits
from wsi_ncmi.core.errors import InputError, TrainingError
from wsi_ncmi.core.files import atomic_path, job_folder
from wsi_ncmi.core.progress import NullProgress, ProgressReporter
from wsi_ncmi.parallel import affordable_workers, keep_large_buffers, run_items, visible_gpus
from wsi_ncmi.parallel import process_group as distributed
from wsi_ncmi.training.bags import BagCache
from wsi_ncmi.training.config import RunConfig, TrainConfig
from wsi_ncmi.training.curves import CURVES
from wsi_ncmi.training.data import TrainingData, refuse_leaks
from wsi_ncmi.training.runs import (
    PREDICTIONS,
    Run,
    RunFailure,
    do_run,
    is_done,
    read_run_predictions,
    remove_run,
)
from wsi_ncmi.training.warm_start import check_warm_start

_LOG = logging.getLogger(__name__)

_Numbered = tuple[int, Run]
"""A run with the position of its experiment."""


@dataclass(frozen=True)
class Experiment:
    """Every loss with every seed on every fold, of one model on one set of features.

    One loss: ``out/fold_<k>/seed_<s>/`` and ``out/predictions.csv``; several: the same below ``out/<loss>/``.

    Attributes:
        config: What to train.
        data: Bags, labels and folds.
        folds: Positions of the folds to run; None = all.
    """

    config: TrainConfig
    data: TrainingData
    folds: Sequence[int] | None = None


@dataclass(frozen=True)
class ExperimentResult:
    """What an experiment left.

    Attributes:
        predictions: Out-of-fold predictions of all finished runs: ``loss``, then the columns of
            ``predictions.csv``.
        curves: Their curves: ``loss``, ``fold``, ``seed``, then the columns of ``curves.csv``.
        folders: Loss name → folder of its runs and its ``predictions.csv``.
        skipped: Runs that were finished before.
        failures: Runs without result.
    """

    predictions: pd.DataFrame
    curves: pd.DataFrame
    folders: Mapping[str, Path]
    skipped: int
    failures: tuple[RunFailure, ...]


def run_experiment(
    config: TrainConfig, data: TrainingData, progress: ProgressReporter | None = None
) -> ExperimentResult:
    """Trains every loss with every seed on every fold and predicts the test parts.

    Finished runs of the same configuration are skipped, interrupted ones resume.

    Raises:
        InputError: Wrong input, or ``config.out`` holds runs of another configuration; nothing was started.
        TrainingError: Not one run has a result.
    """
    return run_experiments([Experiment(config, data)], progress)[0]


def run_experiments(
    experiments: Sequence[Experiment], progress: ProgressReporter | None = None
) -> list[ExperimentResult]:
    """Does the runs of all experiments with one pool of processes: no core waits for the last run of each.

    Results do not depend on the number of processes. Under torchrun the processes share each run instead.

    Args:
        experiments: What to run; those that share features follow each other. ``workers`` and ``device`` are
            those of the first one.
        progress: Told about every epoch.

    Returns:
        Predictions, curves and failures of each experiment.

    Raises:
        InputError: Wrong input, leaking folds, or an output folder holds runs of another configuration;
            nothing was started.
        TrainingError: Not one run of an experiment has a result.
    """
    first = experiments[0].config
    gpus = visible_gpus() if first.training.device != "cpu" else ()
    workers = first.workers or len(gpus) or affordable_workers()
    if distributed.world_size() > 1:
        workers = 1
    plans = [_plan(experiment, workers) for experiment in experiments]
    if distributed.rank() == 0:
        for experiment in experiments:
            write_splits(experiment.data.splits, job_folder(experiment.config.out) / "splits.json")
    todo = [(number, run) for number, plan in enumerate(plans) for run in plan.todo]
    for _, run in todo:
        job_folder(run.folder)
    shown = progress if progress is not None and distributed.rank() == 0 else NullProgress()
    failures = list(
        _run_all(todo, [each.data for each in experiments], workers=workers, gpus=gpus, progress=shown)
    )
    return [
        _result(plan, tuple(failure for place, failure in failures if place == number))
        for number, plan in enumerate(plans)
    ]


@dataclass(frozen=True)
class _Plan:
    runs: Sequence[Run]
    todo: Sequence[Run]


def _plan(experiment: Experiment, workers: int) -> _Plan:
    config, data = experiment.config, experiment.data
    refuse_leaks(data.leaks, allowed=config.allow_leak)
    cache = BagCache(data.source, 0)
    for fold in data.splits.folds:
        cache.lengths((*fold.train, *fold.validation, *fold.test))
    training = config.training if workers == 1 else replace(config.training, threads=1)
    folds = range(len(data.splits.folds)) if experiment.folds is None else experiment.folds
    # The losses of a fold and seed together, so that an early stop leaves fair pairs.
    runs = [
        Run(
            name,
            RunConfig(model=config.model, loss=loss, training=training, seed=seed, init=config.init),
            fold,
            config.folder_of(name) / f"fold_{fold}" / f"seed_{seed}",
        )
        for seed in range(config.seeds)
        for fold in folds
        for name, loss in config.named_losses.items()
    ]  # fmt: skip
    for loss in config.named_losses.values():
        run = RunConfig(model=config.model, loss=loss, init=config.init)
        check_warm_start(run, data, allow_leak=config.allow_leak)
    is_finished = _is_done_or_removed if config.overwrite else is_done
    todo = [run for run in runs if not is_finished(run, run.identity(data))]
    return _Plan(runs, distributed.from_first(todo))


def _is_done_or_removed(run: Run, identity: Mapping[str, Any]) -> bool:
    try:
        return is_done(run, identity)
    except InputError:
        remove_run(run)
        return False


def _result(plan: _Plan, failures: tuple[RunFailure, ...]) -> ExperimentResult:
    lost = {(failure.loss, failure.fold, failure.seed) for failure in failures}
    finished = [run for run in plan.runs if (run.name, run.fold, run.seed) not in lost]
    if not finished:
        raise TrainingError(f"Not one of {len(plan.runs)} runs has a result; the first: {failures[0].reason}")
    folders = {run.name: run.folder.parent.parent for run in plan.runs}
    skipped = len(plan.runs) - len(plan.todo)
    if distributed.rank() > 0:
        return ExperimentResult(pd.DataFrame(), pd.DataFrame(), folders, skipped, failures)
    predictions = _collect(finished, PREDICTIONS, read_run_predictions)
    for name, folder in folders.items():
        table = predictions[predictions["loss"] == name].drop(columns="loss")
        with atomic_path(folder / PREDICTIONS) as temporary:
            table.to_csv(temporary, index=False, lineterminator="\n")
    curves = _collect(finished, CURVES, pd.read_csv, with_run=True)
    return ExperimentResult(predictions, curves, folders, skipped, failures)


def _collect(
    runs: Sequence[Run], name: str, read: Callable[[Path], pd.DataFrame], *, with_run: bool = False
) -> pd.DataFrame:
    tables = []
    for run in sorted(runs, key=lambda run: (run.fold, run.seed)):
        table = read(run.folder / name)
        if with_run:
            table.insert(0, "fold", run.fold)
            table.insert(1, "seed", run.seed)
        table.insert(0, "loss", run.name)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _run_all(
    todo: Sequence[_Numbered],
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
            todo, partial(_RunsOfProcess, data, share), workers=share, on_news=on_epoch, gpus=gpus,
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

    def __call__(self, task: _Numbered, callback: Callable[[Any], None]) -> None:
        number, run = task
        data = self._data[number]
        do_run(run, self._cache_of(data.source, run.config.training.cache_mib), data, callback)


def _same_bags(one: BagSource, other: BagSource) -> bool:
    """Whether two experiments read the same bags, also where each has opened them for itself."""
    a, b = ((type(s), s.path, s.width, s.encoder, s.slide_ids) for s in (one, other))
    return one is other or a == b
