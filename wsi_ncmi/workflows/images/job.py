"""The image-recognition job: every loss with every seed, then a table, a summary and a page of curves."""

from __future__ import annotations

import functools
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsi_ncmi.core.config import read_config
from wsi_ncmi.core.errors import InputError, TrainingError
from wsi_ncmi.core.files import ensure_folder
from wsi_ncmi.core.progress import NullProgress, ProgressReporter, TaskProgress
from wsi_ncmi.losses import LossConfig
from wsi_ncmi.workflows.config import find_config
from wsi_ncmi.workflows.images.config import ImageJobConfig
from wsi_ncmi.workflows.images.summary import write_results
from wsi_ncmi.workflows.result import JobResult

__all__ = ["load_image_config", "run_images"]

_Tell = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class _Run:
    name: str
    loss: LossConfig
    seed: int
    folder: Path

    def __str__(self) -> str:
        return f"{self.name}, seed {self.seed}"


@dataclass(frozen=True)
class _Terms:
    """What all runs of a job share."""

    config: ImageJobConfig
    overwrite: bool
    until: float


def load_image_config(
    name_or_path: str | Path | None,
    overrides: tuple[str, ...] = (),
    values: Mapping[str, Any] | None = None,
) -> ImageJobConfig:
    """Reads a configuration: a YAML file or the name of one in ``configs/images/``.

    Raises:
        InputError: As ``load_config``.
    """
    file = None if name_or_path is None else find_config(name_or_path, "images")
    return read_config(ImageJobConfig, file, flags=values, overrides=overrides)


def run_images(
    config: ImageJobConfig,
    progress: ProgressReporter | None = None,
    *,
    overwrite: bool = False,
    minutes: float | None = None,
) -> JobResult:
    """Trains what isn't trained yet and writes the results of what is.

    The same call goes on where an earlier one was stopped, killed or ran out of ``minutes``. Under
    ``torchrun`` all processes call it, and share every run.

    Args:
        config: The job.
        progress: Told about every epoch.
        overwrite: Replace runs of another configuration.
        minutes: Stop after so many minutes and save; None goes on to the end.

    Returns:
        Paths of ``runs``, ``summary`` and ``page`` (once a run is finished); a failure for each run that has
        no result, a note when runs are left.

    Raises:
        InputError: Wrong input; nothing was started.
        TrainingError: Not one run could be finished, or a run under ``torchrun`` failed.
    """
    from wsi_ncmi.vision import process_group

    runs = [
        _Run(name, loss, seed, config.out / name / f"seed_{seed}")
        for seed in range(config.first_seed, config.first_seed + config.seeds)
        for name, loss in config.losses.items()
    ]
    until = math.inf if minutes is None else time.monotonic() + 60 * minutes
    terms = _Terms(config, overwrite, until)
    total = len(runs) * config.recipe.epochs
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and config.workers > 1:
        raise InputError("workers must be 1 under torchrun: its processes share every run.")
    with process_group(config.recipe.device) as ranks:
        reporter = progress if progress is not None and ranks.is_first else NullProgress()
        if ranks.is_first:
            ensure_folder(config.out)
        with reporter.task(config.name, total, "epochs") as task:
            if config.workers > 1:
                failures, left = _in_processes(runs, terms, task)
            else:
                failures, left = _one_after_the_other(runs, terms, task, ranks)
        if not ranks.is_first:
            return JobResult({})
        files = write_results(config, [(run.name, run.seed, run.folder) for run in runs])
    if not files and failures:
        raise TrainingError(failures[0])
    notes = (f"{left} of {len(runs)} runs are not finished; the same command goes on.",) if left else ()
    return JobResult(files, tuple(failures), notes)


def _one_after_the_other(
    runs: list[_Run], terms: _Terms, task: TaskProgress, ranks: Any
) -> tuple[list[str], int]:
    work = _prepare(terms, ranks)
    failures: list[str] = []
    left = 0
    for run in runs:
        if time.monotonic() >= terms.until and ranks.world == 1:
            left += 1
            continue
        told = _Counter(run, task)
        try:
            finished, epochs = work(run, told)
        except TrainingError as error:
            if ranks.world > 1:
                raise  # The other processes can't know, and wait in the middle of a step.
            failures.append(f"{run}: {error}")
            continue
        told.rest(epochs)
        left += not finished
    return failures, left


def _in_processes(runs: list[_Run], terms: _Terms, task: TaskProgress) -> tuple[list[str], int]:
    from wsi_ncmi.parallel.pool import run_in_processes

    counters = [_Counter(run, task) for run in runs]
    failures: list[str] = []
    left = 0
    outcomes = run_in_processes(
        runs,
        functools.partial(_prepare, terms),
        workers=min(terms.config.workers, len(runs)),
        on_news=lambda index, row: counters[index](row),
    )
    for outcome in outcomes:
        if outcome.problem:
            failures.append(f"{runs[outcome.index]}: {outcome.problem}")
            continue
        finished, epochs = outcome.result
        counters[outcome.index].rest(epochs)
        left += not finished
    return failures, left


class _Counter:
    """Tells the bar about the epochs of one run, those of an earlier call too."""

    def __init__(self, run: _Run, task: TaskProgress) -> None:
        self._run, self._task, self._done = run, task, 0

    def __call__(self, row: Mapping[str, Any]) -> None:
        self._done += 1
        top1 = row["top1"]
        note = f"{self._run}, epoch {row['epoch']}" + ("" if top1 != top1 else f": top-1 {top1:.3f}")
        self._task.advance(1, note)

    def rest(self, epochs: int) -> None:
        if epochs > self._done:
            self._task.advance(epochs - self._done, f"{self._run}: {epochs} epochs are done")


def _prepare(terms: _Terms, ranks: Any = None) -> Callable[[_Run, _Tell], tuple[bool, int]]:
    """Opens the images once and returns what does a run with them: ``(finished, epochs)``."""
    from wsi_ncmi.vision import fit_images, open_images, process_group

    config = terms.config
    images = open_images(config.data)

    def work(run: _Run, tell: _Tell) -> tuple[bool, int]:
        if time.monotonic() >= terms.until and (ranks is None or ranks.world == 1):
            return False, 0
        with process_group(config.recipe.device) as found:
            result = fit_images(
                images, data=config.data, network=config.network, loss=run.loss, recipe=config.recipe,
                seed=run.seed, out=run.folder, ranks=ranks or found, overwrite=terms.overwrite,
                until=terms.until, on_epoch=tell,
            )  # fmt: skip
        return result.finished, result.epochs

    return work
