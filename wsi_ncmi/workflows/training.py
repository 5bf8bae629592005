"""The training job: features and labels to out-of-fold predictions, metrics and a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from wsi_ncmi.cohorts import SplitConfig, write_splits
from wsi_ncmi.cohorts.feature_origin import feature_origin
from wsi_ncmi.core.files import ensure_folder
from wsi_ncmi.core.progress import NullProgress, ProgressReporter
from wsi_ncmi.core.provenance import write_record
from wsi_ncmi.losses import LossConfig
from wsi_ncmi.mil import ModelConfig, model_config
from wsi_ncmi.training import TrainingConfig
from wsi_ncmi.training.config import EvaluationConfig
from wsi_ncmi.workflows.cohort_data import CohortData, prepare_cohort
from wsi_ncmi.workflows.config import JobConfig, recorded
from wsi_ncmi.workflows.reports import publish_run
from wsi_ncmi.workflows.result import JobResult

if TYPE_CHECKING:
    from wsi_ncmi.training.experiment import Experiment, ExperimentResult

__all__ = ["TrainingRequest", "named_losses", "prepare", "publish", "train", "train_all", "train_prepared"]


@dataclass(frozen=True)
class TrainingRequest:
    """What to train on, and how.

    Attributes:
        features: Folder of feature files, or a packed ``.npz``.
        further_features: Features of the same tiles by further encoders, joined with the first.
        bag: What a bag is, a ``slide`` or a ``patient``.
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
        workers: Processes; None takes one a GPU where training runs on GPUs, else one a core.
        overwrite: Replace runs of another configuration.
        allow_leak: Train on a split that leaks; the report says so.
        title: Title of the report.
        ledger: Ledger of the extraction, for the cohort flow.
        job: The whole job's configuration, for the report; None = this request is all of it.
    """

    features: Path
    out: Path
    losses: Mapping[str, LossConfig]
    further_features: tuple[Path, ...] = ()
    bag: Literal["slide", "patient"] = "slide"
    labels: str | None = None
    splits_file: Path | None = None
    official: bool = False
    split: SplitConfig = field(default_factory=SplitConfig)
    model: ModelConfig = field(default_factory=model_config)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    seeds: tuple[int, ...] = (0,)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
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
            further_features=config.further_features,
            bag=config.bag,
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
            job=recorded(config) if whole_job else None,
        )


def named_losses(losses: Sequence[LossConfig]) -> Mapping[str, LossConfig]:
    """Names each loss of a list: its own name, with a number where one name comes several times."""
    named: dict[str, LossConfig] = {}
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
        that has no result. Under torchrun the processes share each run; only the first one evaluates and has
        files to tell of.

    Raises:
        InputError: Wrong input; nothing was started.
        TrainingError: Not one run has a result.
    """
    return train_all([request], workers=request.workers, progress=progress)[0]


def train_all(
    requests: Sequence[TrainingRequest],
    *,
    workers: int | None = None,
    progress: ProgressReporter | None = None,
) -> list[JobResult]:
    """Trains several experiments with one crew of processes, then evaluates and reports each.

    Args:
        requests: What and how; their own ``workers`` don't count.
        workers: Processes; None takes one a GPU where training runs on GPUs, else one a core.
        progress: Told about every epoch.

    Returns:
        What :func:`train` returns, for each.

    Raises:
        InputError: Wrong input; nothing was started.
        TrainingError: Not one run of an experiment has a result.
    """
    from wsi_ncmi.parallel import process_group as distributed

    with distributed.process_group(requests[0].training.device):
        prepared = [(request, prepare(request)) for request in requests]
        results = train_prepared([(*each, None) for each in prepared], workers, progress)
        if distributed.rank() > 0:
            return [JobResult({}) for _ in requests]
    return [publish(request, data, result) for (request, data), result in zip(prepared, results, strict=True)]


def train_prepared(
    prepared: Sequence[tuple[TrainingRequest, CohortData, Sequence[int] | None]],
    workers: int | None,
    progress: ProgressReporter | None,
) -> list[ExperimentResult]:
    """Trains experiments whose cohorts are at hand, with one crew of processes.

    Args:
        prepared: Request, cohort, and positions of the folds to run (None = all).
        workers: As :func:`train_all`.
        progress: Told about every epoch.

    Raises:
        InputError: Wrong input; nothing was started.
        TrainingError: Not one run of an experiment has a result.
    """
    from wsi_ncmi.parallel import affordable_workers, keep_large_buffers, visible_gpus
    from wsi_ncmi.parallel import process_group as distributed
    from wsi_ncmi.training.experiment import run_experiments

    first = distributed.rank() == 0
    if first:
        for request, data, _ in prepared:
            write_splits(data.splits, ensure_folder(request.out) / "splits.json")
    gpus = visible_gpus() if prepared[0][0].training.device != "cpu" else ()
    return run_experiments(
        [_experiment(*each) for each in prepared],
        workers=workers or len(gpus) or affordable_workers(),
        gpus=gpus,
        # Batches come and go by the step; every fresh page of theirs would be cleared by the system first.
        on_start=keep_large_buffers,
        progress=progress if progress is not None and first else NullProgress(),
    )


def prepare(request: TrainingRequest) -> CohortData:
    """The cohort and folds of a training.

    Raises:
        InputError: Wrong input, or copies of a slide in several parts of a fold.
    """
    from wsi_ncmi.training.plan import refuse_leaks

    data = prepare_cohort(
        request.features,
        request.labels,
        split=request.split,
        splits_file=request.splits_file,
        official=request.official,
        further_features=request.further_features,
        bag=request.bag,
    )
    if request.bag == "patient":
        refuse_leaks(*data.of_slides, allow_leak=request.allow_leak, evidence=data.evidence)
    return data


def _experiment(request: TrainingRequest, data: CohortData, only: Sequence[int] | None) -> Experiment:
    from wsi_ncmi.training.experiment import Experiment

    return Experiment(
        source=data.source,
        cohort=data.cohort,
        splits=data.splits,
        model=request.model,
        losses=request.losses,
        training=request.training,
        seeds=request.seeds,
        out=request.out,
        overwrite=request.overwrite,
        allow_leak=request.allow_leak,
        encoder=feature_origin(data.source),
        evidence=data.evidence if request.bag == "slide" else None,
        only=only,
    )


def publish(request: TrainingRequest, data: CohortData, result: ExperimentResult) -> JobResult:
    """Writes ``run.json``, predictions, metrics and report of a training, and tells where they are."""
    out = request.out
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
        "further_features": list(request.further_features),
        "bag": request.bag,
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
