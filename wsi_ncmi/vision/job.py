"""The image-recognition job: every loss with every seed, then the results of all runs."""

import functools
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsi_ncmi.core.errors import InputError, TrainingError
from wsi_ncmi.core.files import job_folder
from wsi_ncmi.core.progress import NullProgress, ProgressReporter
from wsi_ncmi.losses import LossConfig
from wsi_ncmi.parallel import process_group as distributed
from wsi_ncmi.parallel.tasks import Work, run_items
from wsi_ncmi.vision.config import ImageJobConfig
from wsi_ncmi.vision.data import open_images
from wsi_ncmi.vision.summary import write_results
from wsi_ncmi.vision.trainer import fit_images


@dataclass(frozen=True)
class _Run:
    name: str
    loss: LossConfig
    seed: int
    folder: Path

    def __str__(self) -> str:
        return f"{self.name}, seed {self.seed}"


def run_images(
    config: ImageJobConfig,
    progress: ProgressReporter | None = None,
    *,
    overwrite: bool = False,
    minutes: float | None = None,
) -> tuple[Mapping[str, Path], tuple[str, ...], tuple[str, ...]]:
    """Trains what isn't trained yet and writes the results of the finished runs.

    The same call resumes where an earlier one was stopped, killed or ran out of ``minutes``. Under
    ``torchrun`` all processes call it, and share every run.

    Args:
        config: The job.
        progress: Told about every epoch.
        overwrite: Replace runs of another configuration.
        minutes: Stop after so many minutes and save; None = no limit.

    Returns:
        Paths of ``runs``, ``summary`` and ``page`` (once a run is finished); one sentence for each run that
        failed; a note when runs are left.

    Raises:
        InputError: Wrong input; nothing was started.
        TrainingError: Not one run could be finished, or a run under ``torchrun`` failed.
    """
    runs = [
        _Run(name, loss, seed, config.out / name / f"seed_{seed}")
        for seed in range(config.first_seed, config.first_seed + config.seeds)
        for name, loss in config.losses.items()
    ]
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and config.workers > 1:
        raise InputError("workers must be 1 under torchrun: its processes share every run.")
    distributed.resolve_device(config.recipe.device, "recipe.device")
    until = math.inf if minutes is None else time.monotonic() + 60 * minutes
    setup = functools.partial(_opened, config, overwrite, until)
    failures: list[str] = []
    left = 0
    epochs = [0] * len(runs)
    with distributed.process_group(config.recipe.device):
        reporter = progress if progress is not None and distributed.rank() == 0 else NullProgress()
        if distributed.rank() == 0:
            job_folder(config.out)
        with reporter.task(config.name, len(runs) * config.recipe.epochs, "epochs") as task:

            def on_epoch(index: int, row: Mapping[str, Any]) -> None:
                epochs[index] += 1
                top1 = "" if row["top1"] != row["top1"] else f": top-1 {row['top1']:.3f}"
                task.advance(1, f"{runs[index]}, epoch {row['epoch']}{top1}")

            # Other processes of torchrun can't know of a failure, and would wait in the middle of a step.
            catch = TrainingError if distributed.world_size() == 1 else ()
            for outcome in run_items(runs, setup, workers=config.workers, on_news=on_epoch, catch=catch):
                run = runs[outcome.index]
                if outcome.problem:
                    failures.append(f"{run}: {outcome.problem}")
                    continue
                finished, done = outcome.result
                left += not finished
                if done > epochs[outcome.index]:  # those of an earlier call
                    task.advance(done - epochs[outcome.index], f"{run}: {done} epochs are done")
        if distributed.rank() > 0:
            return {}, (), ()
        files = write_results(config, [(run.name, run.seed, run.folder) for run in runs])
    if not files and failures:
        raise TrainingError(failures[0])
    notes = (f"{left} of {len(runs)} runs are not finished; the same command resumes.",) if left else ()
    return files, tuple(failures), notes


def _opened(config: ImageJobConfig, overwrite: bool, until: float) -> Work:
    """Opens the images and returns what does a run with them: ``(finished, epochs)``."""
    images = open_images(config.data)

    def work(run: _Run, on_epoch: Callable[[Any], None]) -> tuple[bool, int]:
        if time.monotonic() >= until and distributed.world_size() == 1:
            return False, 0
        result = fit_images(
            images, config, run.loss, seed=run.seed, out=run.folder, overwrite=overwrite, until=until,
            on_epoch=on_epoch,
        )  # fmt: skip
        return result.finished, len(result.curves)

    return work
