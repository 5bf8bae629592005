"""Training: features and labels to out-of-fold predictions, metrics and a report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsi_ncmi.core.config.keywords import takes_settings
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.extras import require
from wsi_ncmi.core.progress import ProgressReporter
from wsi_ncmi.workflows.result import JobResult

if TYPE_CHECKING:
    from wsi_ncmi.training import ExperimentResult, TrainConfig, TrainingData


@takes_settings("wsi_ncmi.training:TrainConfig", "features", "out", loss="losses")
def train(
    config: TrainConfig,
    progress: ProgressReporter | None = None,
    *,
    ledger: Path | None = None,
    job: Mapping[str, Any] | None = None,
) -> JobResult:
    """Trains every loss on every fold with every seed, evaluates and reports.

    Several losses share folds, seeds and initial weights and are compared.

    The settings of :class:`~wsi_ncmi.training.TrainConfig` can be given themselves, see the example.

    Args:
        config: What and how; ``features`` is needed.
        progress: Told about every epoch.
        ledger: Ledger of the extraction, for the cohort flow of the report.
        job: The whole job's configuration, for the report; None = ``config`` is all of it.

    Returns:
        Paths of ``predictions``, ``metrics``, ``report``, ``summary`` and ``splits``, of several losses also
        ``compare`` (a row a run) and ``differences``; a failure for each run that has no result. Under
        torchrun the processes share each run; only the first one evaluates and has files to tell of.

    Raises:
        InputError: Wrong input; nothing was started.
        TrainingError: Not one run has a result.

    Example:
        >>> result = train(
        ...     "features.npz", "run", labels="labels.csv", loss="ncmi", epochs=20
        ... )  # doctest: +SKIP
        >>> result.metrics["macro_f1"].value  # doctest: +SKIP
    """
    require(("train",), "train")  # the report comes last
    from wsi_ncmi.parallel import process_group as distributed
    from wsi_ncmi.training import prepare_data, run_experiment

    with distributed.process_group(config.training.device):
        data = prepare_data(config)
        result = run_experiment(config, data, progress)
        if distributed.rank() > 0:
            return JobResult({})
    return published(config, data, result, ledger=ledger, job=job)


@takes_settings("wsi_ncmi.training:TrainConfig", "features", "out", loss="losses")
def compare(config: TrainConfig, progress: ProgressReporter | None = None) -> JobResult:
    """Trains several losses on the same folds, seeds and initial weights, and compares them in pairs.

    The same as :func:`train` with ``losses=("ncmi", "ce")``; the numbers are ``result.numbers``.

    Args:
        config: What and how.
        progress: Told about every epoch.

    Raises:
        InputError: Wrong input, or a single loss; nothing was started.
        TrainingError: Not one run has a result.
    """
    if len(config.losses) < 2:
        raise InputError("A comparison needs at least two losses, such as losses=['ncmi', 'ce'].")
    return train(config, progress)


def published(config: TrainConfig, data: TrainingData, result: ExperimentResult, **more: Any) -> JobResult:
    """Writes metrics and report of a finished training.

    Args:
        config: What was trained.
        data: What on.
        result: What it left.
        **more: As :func:`wsi_ncmi.reporting.report_run`.
    """
    from wsi_ncmi.reporting import report_run

    failures = tuple(
        f"{failed.loss}, fold {failed.fold}, seed {failed.seed}: {failed.reason}"
        for failed in result.failures
    )
    notes = tuple(f"{item.slide_id}: {item.reason}." for item in data.unmatched)
    return JobResult(report_run(config, data, result, **more), failures, notes)
