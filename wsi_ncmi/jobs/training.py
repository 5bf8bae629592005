"""The training job: features and labels to out-of-fold predictions, metrics and a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from wsi_ncmi.cohorts import SplitOptions, write_splits
from wsi_ncmi.files import ensure_folder
from wsi_ncmi.jobs.cohort_data import prepare_cohort
from wsi_ncmi.jobs.config import EvaluationOptions, JobConfig, config_adapter
from wsi_ncmi.jobs.feature_origin import feature_origin
from wsi_ncmi.jobs.records import write_record
from wsi_ncmi.jobs.reports import publish_run
from wsi_ncmi.jobs.result import JobResult
from wsi_ncmi.losses import LossOptions
from wsi_ncmi.mil import ModelOptions
from wsi_ncmi.progress import NullProgress, ProgressReporter
from wsi_ncmi.training import TrainingOptions, run_experiment

__all__ = ["TrainingRequest", "named_losses", "train"]


@dataclass(frozen=True)
class TrainingRequest:
    """What to train on, and how.

    Attributes:
        features: Folder of feature files, or a packed ``.npz``.
        out: Run folder.
        losses: Name → loss; the first is the headline.
        labels: Labels table, or ``adapter:FILE``; None takes those inside a packed file.
        splits_file: Splits to use; None makes folds.
        official: Use the cohort's own split.
        split: How folds are made.
        model: Aggregator.
        training: Optimisation.
        seeds: Seeds of weights and order.
        evaluation: Intervals.
        workers: Processes; None takes one a core.
        overwrite: Replace runs of another configuration.
        allow_leak: Train on a split that leaks; the report says so.
        title: Title of the report.
        ledger: Ledger of the extraction, for the cohort flow.
        job: The whole job's configuration, for the report; None = this request is all of it.
    """

    features: Path
    out: Path
    losses: Mapping[str, LossOptions]
    labels: str | None = None
    splits_file: Path | None = None
    official: bool = False
    split: SplitOptions = field(default_factory=SplitOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    training: TrainingOptions = field(default_factory=TrainingOptions)
    seeds: tuple[int, ...] = (0,)
    evaluation: EvaluationOptions = field(default_factory=EvaluationOptions)
    workers: int | None = None
    overwrite: bool = False
    allow_leak: bool = False
    title: str = "wsi-ncmi"
    ledger: Path | None = None
    job: Mapping[str, Any] | None = None

    @classmethod
    def of_config(
        cls,
        config: JobConfig,
        features: Path,
        out: Path,
        *,
        overwrite: bool = False,
        allow_leak: bool = False,
        ledger: Path | None = None,
        whole_job: bool = False,
    ) -> TrainingRequest:
        """The training that a job's configuration asks for, on these features and into this folder.

        With ``whole_job`` the report shows the configuration of the extraction, too.
        """
        return cls(
            features=features,
            out=out,
            losses=named_losses(config.losses),
            labels=config.labels,
            splits_file=config.splits,
            official=config.official_split,
            split=config.split,
            model=config.model,
            training=config.training,
            seeds=tuple(range(config.seeds)),
            evaluation=config.evaluation,
            workers=config.workers,
            overwrite=overwrite,
            allow_leak=allow_leak,
            title=config.name,
            ledger=ledger,
            job=config_adapter().dump_python(config, mode="json") if whole_job else None,
        )


def named_losses(losses: Sequence[LossOptions]) -> Mapping[str, LossOptions]:
    """Names each loss of a list: its own name, with a number where one name comes several times."""
    named: dict[str, LossOptions] = {}
    for loss in losses:
        name, number = loss.name, 2
        while name in named:
            name, number = f"{loss.name}-{number}", number + 1
        named[name] = loss
    return named


def train(request: TrainingRequest, progress: ProgressReporter | None = None) -> JobResult:
    """Trains every loss on every fold with every seed, evaluates and reports.

    Args:
        request: What and how.
        progress: Told about every epoch.

    Returns:
        Paths of ``predictions``, ``metrics``, ``report``, ``summary`` and ``splits``; a failure for each run
        that has no result.

    Raises:
        InputError: Wrong input; nothing was started.
        TrainingError: Not one run has a result.
    """
    from wsi_ncmi.scale import affordable_workers

    data = prepare_cohort(
        request.features,
        request.labels,
        split=request.split,
        splits_file=request.splits_file,
        official=request.official,
    )
    out = ensure_folder(request.out)
    write_splits(data.splits, out / "splits.json")
    result = run_experiment(
        data.source.path,
        data.cohort,
        data.splits,
        model=request.model,
        losses=request.losses,
        training=request.training,
        seeds=request.seeds,
        out=out,
        workers=request.workers or affordable_workers(),
        overwrite=request.overwrite,
        allow_leak=request.allow_leak,
        encoder=feature_origin(data.source),
        evidence=data.evidence,
        progress=progress or NullProgress(),
    )
    config = {
        "model": asdict(request.model),
        "losses": {name: asdict(loss) for name, loss in request.losses.items()},
        "training": asdict(request.training),
        "split": asdict(request.split),
        "splits_file": request.splits_file,
        "official_split": request.official,
        "evaluation": asdict(request.evaluation),
        "seeds": list(request.seeds),
        "features": request.features,
        "labels": request.labels,
        "allow_leak": request.allow_leak,
    }
    record = write_record(
        out / "run.json",
        config=config,
        headline=next(iter(request.losses)),
        losses=list(request.losses),
        classes=list(data.cohort.classes),
        features=feature_origin(data.source),
        hashes=dict(data.hashes),
        leaks=[leak.detail for leak in data.leaks if leak.fatal],
    )
    files = publish_run(out, request, data, result, record)
    failures = tuple(
        f"{failed.loss}, fold {failed.fold}, seed {failed.seed}: {failed.reason}"
        for failed in result.failures
    )
    notes = tuple(f"{item.slide_id}: {item.reason}." for item in data.match.unmatched)
    return JobResult({**files, "splits": out / "splits.json"}, failures, notes)
