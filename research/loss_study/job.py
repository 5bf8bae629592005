"""The study as a job: the runs that the table lacks, stage by stage, for a given time."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from research.loss_study.plan import KEY, STAGES, StudyRun, plan_study
from research.loss_study.regimes import REGIMES
from research.loss_study.settings import (
    GRID,
    GRIDS,
    ON_LESIONS,
    Setting,
    ablation_settings,
    describe_grid,
    exploration_settings,
    lead_settings,
    model_settings,
    sensitivity_settings,
)
from wsi_ncmi.core.errors import InputError, WsiNcmiError
from wsi_ncmi.core.files import ensure_folder, write_json
from wsi_ncmi.core.progress import NullProgress, ProgressReporter
from wsi_ncmi.losses import loss_config
from wsi_ncmi.mil import ModelConfig, model_config
from wsi_ncmi.parallel import run_items
from wsi_ncmi.training import TrainingConfig
from wsi_ncmi.training.resume import as_written_now
from wsi_ncmi.workflows.result import JobResult

__all__ = ["StudyRequest", "run_study", "study_stage"]


@dataclass(frozen=True, kw_only=True)
class StudyRequest:
    """Runs of one stage.

    Attributes:
        features: Cohort name → packed features with labels, and perhaps a table (``open_study_cohort``).
        out: Folder of the table, ``<stage>.csv``, and of what it means, ``<stage>.json``.
        stage: ``explore`` and ``tune`` score on inner folds, ``confirm`` on the test folds.
        settings: Settings to run; default the grid's.
        regimes: Names of regimes.
        folds: Positions of folds.
        seeds: Seeds.
        model: Aggregator.
        training: Settings shared by all runs; ``epochs`` is that of the full regime, others scale with it.
        workers: Processes.
        minutes: Time after which no further run is begun; None = all.
    """

    features: Mapping[str, str]
    out: Path
    stage: str = "tune"
    settings: Sequence[Setting] = field(default_factory=lambda: [s for of in GRID.values() for s in of])
    regimes: Sequence[str] = tuple(REGIMES)
    folds: Sequence[int] = (0, 1, 2, 3, 4)
    seeds: Sequence[int] = (0,)
    model: ModelConfig = field(default_factory=model_config)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    workers: int = 1
    minutes: float | None = None


def run_study(request: StudyRequest, progress: ProgressReporter | None = None) -> JobResult:
    """Runs the missing rows of the table; stop it at any time and call it again.

    Returns:
        ``table`` and ``description``; a failure for each run without result, and a note where runs are left.

    Raises:
        InputError: Unknown stage or regime, missing features, or a table made with other settings.
    """
    # Imported here: it loads torch.
    from research.loss_study.run import COLUMNS
    from research.loss_study.table import StudyTable

    if request.stage not in STAGES:
        raise InputError(f"There is no stage {request.stage!r}; choose one of {', '.join(STAGES)}.")
    unknown = [name for name in request.regimes if name not in REGIMES]
    if unknown:
        raise InputError(f"There is no regime {unknown[0]!r}; choose among {', '.join(REGIMES)}.")
    for path in (Path(part) for place in request.features.values() for part in place.split(",")):
        if not path.is_file():
            raise InputError(f"The features {path} do not exist; name a packed .npz file of each cohort.")
    ensure_folder(request.out)
    description = request.out / f"{request.stage}.json"
    _describe(request, description)
    table = StudyTable(request.out / f"{request.stage}.csv", KEY, COLUMNS)
    runs = plan_study(
        request.stage, list(request.features), [REGIMES[name] for name in request.regimes], request.settings,
        request.folds, request.seeds,
    )  # fmt: skip
    todo = [run for run in runs if run.key not in table.done]
    failures = _run(todo, request, table.append, progress or NullProgress())
    left = sum(run.key not in table.done for run in todo) - len(failures)
    notes = (f"{left} of {len(runs)} runs are left; the same command resumes.",) if left else ()
    return JobResult({"table": table.path, "description": description}, tuple(failures), notes)


def _describe(request: StudyRequest, path: Path) -> None:
    """Writes what all runs of the table share, which must equal an earlier file."""
    content = {
        "model": asdict(request.model),
        "training": request.training.identity(),
        "regimes": {name: asdict(regime) for name, regime in REGIMES.items()},
        "settings": {},
    }
    settings: dict[str, Any] = {
        f"{item['loss']} | {item['name']}": item for item in describe_grid(request.settings)
    }
    if path.exists():
        before = json.loads(json.dumps(as_written_now(json.loads(path.read_text(encoding="utf-8")))))
        old = {
            name: {**item, "options": asdict(loss_config(**item["options"])), "model": item.get("model")}
            for name, item in before.pop("settings").items()
        }
        wanted = json.loads(json.dumps({k: v for k, v in content.items() if k != "settings"}))
        changed = [name for name in wanted if before.get(name) != wanted[name]]
        changed += [n for n, v in settings.items() if n in old and json.dumps(old[n]) != json.dumps(v)]
        if changed:
            raise InputError(
                f"{path} was written for other settings ({changed[0]} differs); choose another output folder."
            )
        settings = {**old, **settings}
    write_json(path, {**content, "settings": settings})


def _setup(features: Mapping[str, str], model: ModelConfig, training: TrainingConfig) -> Any:
    from research.loss_study.run import StudyWork

    return StudyWork(features, model, training)


def _run(
    todo: Sequence[StudyRun],
    request: StudyRequest,
    append: Callable[[Mapping[str, Any]], None],
    progress: ProgressReporter,
) -> list[str]:
    if not todo:
        return []
    until = None if request.minutes is None else time.monotonic() + 60 * request.minutes
    setup = partial(_setup, dict(request.features), request.model, request.training)
    failures: list[str] = []
    with progress.task("study", total=len(todo), unit="runs") as task:
        outcomes = run_items(todo, setup, workers=request.workers, catch=WsiNcmiError)
        for outcome in outcomes:
            run = todo[outcome.index]
            if outcome.problem:
                failures.append(f"{' / '.join(run.key)}: {outcome.problem}")
            else:
                append(outcome.result)
            task.advance(1, " / ".join(run.key[1:]))
            if until is not None and time.monotonic() > until:
                outcomes.close()
                break
    return failures


def study_stage(
    stage: str,
    out: Path,
    cohorts: Mapping[str, str],
    *,
    regimes: Sequence[str] | None = None,
    losses: Sequence[str] | None = None,
    folds: Sequence[int] = (0, 1, 2, 3, 4),
    seeds: Sequence[int] | None = None,
    model: str = "abmil",
    batch_size: int = 16,
    grid: str = "short",
    best: tuple[int, str] | None = None,
    rivals: int | None = None,
    rate: float | None = None,
    workers: int = 1,
    minutes: float | None = None,
    progress: ProgressReporter | None = None,
) -> JobResult:
    """Runs one stage: explore, sensitivity, ablation, leads, models, tune, choose, confirm or tables.

    Args:
        stage: Its name.
        out: Folder of the study's tables.
        cohorts: Name → packed features with labels, and perhaps a table (``open_study_cohort``); the same
            names in every stage.
        regimes: Names of regimes; default all.
        losses: Names of losses; default all.
        folds: Positions of folds.
        seeds: Seeds; default 0 for the inner stages and 0–4 for ``confirm``.
        model: Aggregator.
        batch_size: Bags a step.
        grid: Settings of ``tune``: one of ``GRIDS``.
        best: (N, cohort): of ``tune`` the N settings of each loss that were best on that cohort.
        rivals: How many rivals ``confirm`` has besides cross-entropy, by their inner mean; None = all.
        rate: Peak rate of all settings, with weight decay .01, in place of their own.
        workers: Processes.
        minutes: Time after which no further run is begun.
        progress: Told about every run.

    Raises:
        InputError: Something is missing or unknown; nothing was started.
    """
    from research.loss_study.results import best_settings, choose_settings, chosen_settings, write_tables

    if stage == "choose":
        return JobResult({"chosen": choose_settings(out)})
    if stage == "tables":
        return JobResult(write_tables(out, cohorts))
    if not cohorts:
        raise InputError("The study needs at least one cohort; add NAME=FEATURES.npz.")
    settings: list[Setting]
    if stage == "explore":
        settings = list(exploration_settings())
    elif stage == "sensitivity":
        settings = list(sensitivity_settings())
    elif stage == "ablation":
        settings = list(ablation_settings())
    elif stage == "leads":
        settings = list(lead_settings())
    elif stage == "models":
        settings = list(model_settings())
    elif stage == "confirm":
        settings = chosen_settings(out, rivals)
        settings += [setting for setting in ON_LESIONS if losses is not None and setting.loss in losses]
    else:
        settings = [setting for of_loss in GRIDS[grid].values() for setting in of_loss]
        if best is not None:
            kept = best_settings(out, best[1], best[0])
            settings = [setting for setting in settings if (setting.loss, setting.name) in kept]
    if losses is not None:
        unknown = set(losses) - {setting.loss for setting in settings}
        if unknown:
            raise InputError(f"The stage {stage!r} has no loss {sorted(unknown)[0]!r}.")
        settings = [setting for setting in settings if setting.loss in losses]
    if rate is not None:
        settings = [
            replace(s, name=f"{s.name}, lr={rate:g} decay=0.01", learning_rate=rate, weight_decay=1e-2)
            for s in settings
        ]
    request = StudyRequest(
        features=cohorts, out=out, stage=stage, settings=settings, regimes=regimes or tuple(REGIMES),
        folds=folds, seeds=seeds or ((0, 1, 2, 3, 4) if stage == "confirm" else (0,)),
        model=model_config(name=model), training=TrainingConfig(batch_size=batch_size, device="cpu"),
        workers=workers, minutes=minutes,
    )  # fmt: skip
    return run_study(request, progress)
