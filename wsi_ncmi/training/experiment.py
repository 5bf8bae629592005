"""The grid folds × seeds × losses: same folds, same seeds and same initial aggregators for every loss."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from wsi_ncmi.cohorts import Cohort, Evidence, Splits, open_bag_source
from wsi_ncmi.errors import InputError, TrainingError, WsiNcmiError
from wsi_ncmi.files import atomic_path, ensure_folder
from wsi_ncmi.losses import LossOptions
from wsi_ncmi.mil import ModelOptions
from wsi_ncmi.progress import NullProgress, ProgressReporter
from wsi_ncmi.training.batches import BagCache
from wsi_ncmi.training.options import TrainingOptions
from wsi_ncmi.training.plan import named_losses, plan_runs, refuse_leaks
from wsi_ncmi.training.pool import Outcome, Work, run_in_processes
from wsi_ncmi.training.runs import (
    CURVES,
    PREDICTIONS,
    Run,
    RunContext,
    RunFailure,
    do_run,
    is_done,
    read_predictions,
    remove_run,
)

__all__ = ["ExperimentResult", "run_experiment"]

_LOG = logging.getLogger(__name__)


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
    source_path: Path,
    cohort: Cohort,
    splits: Splits,
    *,
    model: ModelOptions,
    losses: Sequence[LossOptions] | Mapping[str, LossOptions],
    training: TrainingOptions,
    seeds: Sequence[int],
    out: Path,
    workers: int = 1,
    overwrite: bool = False,
    allow_leak: bool = False,
    encoder: Mapping[str, Any] | None = None,
    evidence: Evidence | None = None,
    progress: ProgressReporter | None = None,
) -> ExperimentResult:
    """Trains every loss with every seed on every fold and predicts the test parts.

    One loss: ``out/fold_<k>/seed_<s>/`` and ``out/predictions.csv``; several: the same below ``out/<loss>/``.
    Finished runs of the same configuration are skipped, interrupted ones continue.

    Args:
        source_path: Features, as ``open_bag_source`` takes them.
        cohort: Labels; every slide of the splits is in it and has tiles.
        splits: The folds.
        model: Aggregator.
        losses: Criteria; a mapping names them, else each has its own name (several settings of one loss need
            a mapping).
        training: How to train.
        seeds: Seeds of weights and order.
        out: Output folder.
        workers: Processes; with one, all runs in this process. Results do not depend on it.
        overwrite: Replace runs of another configuration.
        allow_leak: Train although a patient, slide or image is in two parts of a fold.
        encoder: What made the features, stored with each model.
        evidence: What the leak audit may compare beside labels and fingerprints.
        progress: Told about every epoch.

    Returns:
        Predictions, curves and failures.

    Raises:
        InputError: Wrong input, or ``out`` holds runs of another configuration; nothing was started.
        TrainingError: Not one run has a result.
    """
    refuse_leaks(splits, cohort, allow_leak=allow_leak, evidence=evidence)
    runs = plan_runs(named_losses(losses), len(splits.folds), seeds, out)
    alone = training if workers == 1 else replace(training, threads=1)
    setup = partial(_open_context, source_path, cohort, splits, model, alone, dict(encoder or {}))
    context = setup()
    for fold in splits.folds:
        context.cache.lengths((*fold.train, *fold.validation, *fold.test))
    if overwrite:
        todo = [run for run in runs if not _is_done_or_removed(run, context)]
    else:
        todo = [run for run in runs if not is_done(run, context.identity(run))]
    for run in todo:
        ensure_folder(run.folder)
    failures = tuple(_train(todo, setup, context, workers, training.epochs, progress or NullProgress()))
    lost = {(failure.loss, failure.fold, failure.seed) for failure in failures}
    finished = [run for run in runs if (run.name, run.fold, run.seed) not in lost]
    if not finished:
        raise TrainingError(f"Not one of {len(runs)} runs has a result; the first: {failures[0].reason}")
    folders = {run.name: run.folder.parent.parent for run in runs}
    predictions = _collect(finished, PREDICTIONS, read_predictions)
    for name, folder in folders.items():
        table = predictions[predictions["loss"] == name].drop(columns="loss")
        with atomic_path(folder / PREDICTIONS) as temporary:
            table.to_csv(temporary, index=False, lineterminator="\n")
    curves = _collect(finished, CURVES, pd.read_csv, with_run=True)
    return ExperimentResult(predictions, curves, folders, len(runs) - len(todo), failures)


def _open_context(
    source_path: Path,
    cohort: Cohort,
    splits: Splits,
    model: ModelOptions,
    training: TrainingOptions,
    encoder: Mapping[str, Any],
) -> RunContext:
    cache = BagCache(open_bag_source(source_path), training.cache_mib * 2**20)
    return RunContext(cache, cohort, splits, model, training, encoder)


def _is_done_or_removed(run: Run, context: RunContext) -> bool:
    try:
        if is_done(run, context.identity(run)):
            return True
    except InputError:
        remove_run(run)
    return False


class _RunsOfProcess:
    """What a process of the pool does with a run."""

    def __init__(self, context: RunContext) -> None:
        self._context = context

    def __call__(self, run: Run, tell: Callable[[Any], None]) -> None:
        do_run(run, self._context, tell)


def _setup_process(setup: Callable[[], RunContext], share: int) -> Work:
    context = setup()
    budget = context.training.cache_mib * 2**20 // share
    return _RunsOfProcess(replace(context, cache=BagCache(context.cache.source, budget)))


def _outcomes(
    todo: Sequence[Run],
    setup: Callable[[], RunContext],
    context: RunContext,
    workers: int,
    on_news: Callable[[int, Any], None],
) -> Iterator[Outcome]:
    if workers > 1:
        share = min(workers, max(1, len(todo)))
        yield from run_in_processes(
            todo, partial(_setup_process, setup, share), workers=workers, on_news=on_news
        )
        return
    for index, run in enumerate(todo):
        try:
            do_run(run, context, partial(on_news, index))
            yield Outcome(index)
        except WsiNcmiError as error:
            yield Outcome(index, problem=str(error))
        except Exception as error:
            yield Outcome(index, problem=f"{type(error).__name__}: {error}", details=traceback.format_exc())


def _train(
    todo: Sequence[Run],
    setup: Callable[[], RunContext],
    context: RunContext,
    workers: int,
    epochs: int,
    progress: ProgressReporter,
) -> Iterator[RunFailure]:
    counted = [0] * len(todo)
    ended = 0
    with progress.task("training", total=len(todo) * epochs, unit="epochs") as task:

        def on_news(index: int, row: Mapping[str, float]) -> None:
            run, epoch = todo[index], int(row["epoch"])
            # A resumed run tells only of its remaining epochs, a retried one may tell of some again.
            gain, counted[index] = max(0, epoch - counted[index]), max(epoch, counted[index])
            task.advance(
                gain,
                f"run {ended + 1}/{len(todo)}: {run.name} fold {run.fold} seed {run.seed} "
                f"epoch {epoch}, validation macro-F1 {row['val_macro_f1']:.3f}",
            )

        for outcome in _outcomes(todo, setup, context, workers, on_news):
            ended += 1
            if counted[outcome.index] < epochs:  # stopped early, or failed
                task.advance(epochs - counted[outcome.index])
            if outcome.problem:
                run = todo[outcome.index]
                _LOG.warning("%s fold %d seed %d: %s", run.name, run.fold, run.seed, outcome.problem)
                yield RunFailure(run.name, run.fold, run.seed, outcome.problem, outcome.details)


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
