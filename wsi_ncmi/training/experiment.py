"""Grids of runs: folds × seeds × losses of one model, or several such experiments at a time.

Every loss has the same folds, the same seeds and the same initial aggregators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from wsi_ncmi.cohorts import BagSource, Cohort, Evidence, Splits
from wsi_ncmi.core.errors import InputError, TrainingError
from wsi_ncmi.core.files import atomic_path, ensure_folder
from wsi_ncmi.core.progress import NullProgress, ProgressReporter
from wsi_ncmi.losses import LossConfig
from wsi_ncmi.mil import ModelConfig
from wsi_ncmi.parallel import process_group as distributed
from wsi_ncmi.training.config import TrainingConfig
from wsi_ncmi.training.crew import Opening, carry_out
from wsi_ncmi.training.fitting import CURVES
from wsi_ncmi.training.plan import named_losses, plan_runs, refuse_leaks
from wsi_ncmi.training.runs import (
    PREDICTIONS,
    Run,
    RunContext,
    RunFailure,
    is_done,
    read_predictions,
    remove_run,
)

__all__ = ["Experiment", "ExperimentResult", "run_experiment", "run_experiments"]


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Every loss with every seed on every fold, of one model on one set of features.

    One loss: ``out/fold_<k>/seed_<s>/`` and ``out/predictions.csv``; several: the same below ``out/<loss>/``.

    Attributes:
        source: Features: an opened source, or what ``open_bag_source`` takes.
        cohort: Labels; every slide of the splits is in it and has tiles.
        splits: The folds.
        model: Aggregator.
        losses: Criteria; a mapping names them, else each has its own name (several settings of one loss need
            a mapping).
        training: How to train.
        seeds: Seeds of weights and order.
        out: Output folder.
        overwrite: Replace runs of another configuration.
        allow_leak: Train although a patient, slide or image is in two parts of a fold.
        encoder: What made the features, stored with each model.
        evidence: What the leak audit may compare beside labels and fingerprints.
        only: Positions of the folds to run; None = all.
    """

    source: BagSource | Path
    cohort: Cohort
    splits: Splits
    model: ModelConfig
    losses: Sequence[LossConfig] | Mapping[str, LossConfig]
    training: TrainingConfig
    seeds: Sequence[int]
    out: Path
    overwrite: bool = False
    allow_leak: bool = False
    encoder: Mapping[str, Any] = field(default_factory=dict)
    evidence: Evidence | None = None
    only: Sequence[int] | None = None


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
    source: BagSource | Path,
    cohort: Cohort,
    splits: Splits,
    *,
    model: ModelConfig,
    losses: Sequence[LossConfig] | Mapping[str, LossConfig],
    training: TrainingConfig,
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

    Finished runs of the same configuration are skipped, interrupted ones continue. The arguments are those of
    :class:`Experiment` and of :func:`run_experiments`.

    Raises:
        InputError: Wrong input, or ``out`` holds runs of another configuration; nothing was started.
        TrainingError: Not one run has a result.
    """
    experiment = Experiment(
        source=source, cohort=cohort, splits=splits, model=model, losses=losses, training=training,
        seeds=seeds, out=out, overwrite=overwrite, allow_leak=allow_leak, encoder=dict(encoder or {}),
        evidence=evidence,
    )  # fmt: skip
    return run_experiments([experiment], workers=workers, progress=progress)[0]


def run_experiments(
    experiments: Sequence[Experiment],
    *,
    workers: int = 1,
    gpus: Sequence[str] = (),
    on_start: Callable[[], object] | None = None,
    progress: ProgressReporter | None = None,
) -> list[ExperimentResult]:
    """Does the runs of all experiments with one crew of processes: no core waits for the last run of each.

    Args:
        experiments: What to run; those that share features follow each other.
        workers: Processes; with one, all runs in this process. Results do not depend on it. Under torchrun
            the processes share each run instead.
        gpus: Names of GPUs that the processes are dealt over; empty leaves the choice of device to each run.
        on_start: Called in each process before its first run; picklable.
        progress: Told about every epoch.

    Returns:
        Predictions, curves and failures of each experiment.

    Raises:
        InputError: Wrong input, or an output folder holds runs of another configuration; nothing was started.
        TrainingError: Not one run of an experiment has a result.
    """
    if distributed.world_size() > 1:
        workers = 1
    planned = [_plan(experiment, workers) for experiment in experiments]
    todo = [(number, run) for number, plan in enumerate(planned) for run in plan.todo]
    for _, run in todo:
        ensure_folder(run.folder)
    epochs = [experiment.training.epochs for experiment in experiments]
    failures = list(
        carry_out(
            todo, [plan.opening for plan in planned], epochs, workers=workers, gpus=gpus, on_start=on_start,
            progress=progress or NullProgress(),
        )
    )  # fmt: skip
    return [
        _result(plan, tuple(failure for number, failure in failures if number == place))
        for place, plan in enumerate(planned)
    ]


@dataclass(frozen=True)
class _Plan:
    opening: Opening
    runs: Sequence[Run]
    todo: Sequence[Run]


def _plan(experiment: Experiment, workers: int) -> _Plan:
    refuse_leaks(
        experiment.splits, experiment.cohort, allow_leak=experiment.allow_leak, evidence=experiment.evidence
    )
    folds = experiment.splits.folds
    runs = plan_runs(named_losses(experiment.losses), len(folds), experiment.seeds, experiment.out)
    if experiment.only is not None:
        runs = [run for run in runs if run.fold in experiment.only]
    training = experiment.training
    opening = Opening(
        experiment.source, experiment.cohort, experiment.splits, experiment.model,
        training if workers == 1 else replace(training, threads=1), experiment.encoder,
    )  # fmt: skip
    context = opening.context(training.cache_mib * 2**20)
    for fold in folds:
        context.cache.lengths((*fold.train, *fold.validation, *fold.test))
    if experiment.overwrite:
        todo = [run for run in runs if not _is_done_or_removed(run, context)]
    else:
        todo = [run for run in runs if not is_done(run, context.identity(run))]
    return _Plan(opening, runs, distributed.from_first(todo))


def _is_done_or_removed(run: Run, context: RunContext) -> bool:
    try:
        if is_done(run, context.identity(run)):
            return True
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
    predictions = _collect(finished, PREDICTIONS, read_predictions)
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
