"""Training: features and labels to out-of-fold predictions, metrics and a report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsi_ncmi.core.progress import ProgressReporter
from wsi_ncmi.workflows.result import JobResult

if TYPE_CHECKING:
    from wsi_ncmi.training import ExperimentResult, TrainConfig, TrainingData


def train(
    config: TrainConfig,
    progress: ProgressReporter | None = None,
    *,
    ledger: Path | None = None,
    job: Mapping[str, Any] | None = None,
) -> JobResult:
    """Trains every loss on every fold with every seed, evaluates and reports.

    Several losses share folds, seeds and initial weights and are compared.

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
    """
    from wsi_ncmi.parallel import process_group as distributed
    from wsi_ncmi.training import prepare_data, run_experiment

    with distributed.process_group(config.training.device):
        data = prepare_data(config)
        result = run_experiment(config, data, progress)
        if distributed.rank() > 0:
            return JobResult({})
    return published(config, data, result, ledger=ledger, job=job)


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
