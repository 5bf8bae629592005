"""Sweeps over encoders × models × losses × folds × seeds: one pool of processes, one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.progress import ProgressReporter
from wsi_ncmi.workflows.result import JobResult
from wsi_ncmi.workflows.training import published

if TYPE_CHECKING:
    from wsi_ncmi.training import SweepConfig, TrainingData


def sweep(config: SweepConfig, progress: ProgressReporter | None = None) -> JobResult:
    """Trains all cells; finished runs are skipped, so that a sweep may be stopped and may grow.

    Args:
        config: The sweep.
        progress: Told about every epoch.

    Returns:
        ``table`` (a row a run), ``summary`` (a row a cell, with intervals) and ``overview`` (the same as
        Markdown); failures with the cell's name.

    Raises:
        InputError: Wrong input; nothing was started.
        TrainingError: Not one run of a cell has a result.
    """
    from wsi_ncmi.parallel import process_group as distributed
    from wsi_ncmi.reporting import report_sweep
    from wsi_ncmi.training import Experiment, prepare_data, run_experiments

    cells = config.cells()
    with distributed.process_group(config.training.device):
        data: dict[str, TrainingData] = {}
        for (encoder, _), cell in cells.items():
            data[encoder] = data.get(encoder) or prepare_data(cell)
        results = run_experiments(
            [Experiment(cell, data[encoder]) for (encoder, _), cell in cells.items()], progress
        )
        if distributed.rank() > 0:
            return JobResult({})
    failures: list[str] = []
    notes: dict[str, None] = {}
    for ((encoder, model), cell), result in zip(cells.items(), results, strict=True):
        found = published(cell, data[encoder], result)
        failures += [f"{encoder}, {model}: {failure}" for failure in found.failures]
        notes |= dict.fromkeys(found.notes)
    return JobResult(report_sweep(config), tuple(failures), tuple(notes))


def named_features(features: Sequence[str]) -> dict[str, tuple[Path, ...]]:
    """Name → features, from ``[NAME=]PATH[+PATH]``; the name is else the last part of the first path.

    Raises:
        InputError: Two have the same name.
    """
    named: dict[str, tuple[Path, ...]] = {}
    for text in features:
        name, equals, rest = text.partition("=")
        if not equals or Path(text).exists():
            name, rest = "", text
        paths = (Path(text),) if Path(rest).exists() and not equals else tuple(map(Path, rest.split("+")))
        name = name or paths[0].name.removesuffix(".npz")
        if name in named:
            raise InputError("Two sets of features have the same name; write them as NAME=PATH.")
        named[name] = paths
    return named


def settings_of_models(models: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """``--set`` of a sweep: a setting of ``model`` goes to the models that have it, or else to all."""
    from wsi_ncmi.mil import list_models

    settings = {model.name: {field.name for field in fields(model)} for model in list_models()}
    found = []
    for override in overrides:
        first, _, rest = override.partition(".")
        name = rest.partition("=")[0].partition(".")[0]
        having = [n for n, model in enumerate(models) if name in settings.get(model, ())]
        many = having or range(len(models))
        found += [f"models.{n}.{rest}" for n in many] if first == "model" else [override]
    return found
