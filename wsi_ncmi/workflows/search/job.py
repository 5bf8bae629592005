"""The search as a job: a study a fold, then the folds trained and tested with what each has found."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import atomic_path, ensure_folder, write_json
from wsi_ncmi.core.progress import NullProgress, ProgressReporter
from wsi_ncmi.training.identity import as_written_now
from wsi_ncmi.workflows.config import JobConfig, config_adapter, load_config
from wsi_ncmi.workflows.result import JobResult
from wsi_ncmi.workflows.search.space import DEFAULT_SPACE, Dimension, Space, check_space
from wsi_ncmi.workflows.training import TrainingRequest, prepare, publish, train_prepared

__all__ = ["SearchRequest", "search"]

SEARCH_SCHEMA = "wsi-ncmi/search/1"


@dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """What to search, and with what budget.

    Attributes:
        values: Nested values of the configuration; ``features`` and one of ``losses`` are needed.
        overrides: ``a.b=value`` for all trials.
        out: Folder: ``search.csv``, ``search.json``, ``studies/`` and the trained ``run/``.
        space: Key of the configuration → its values.
        trials: Trials of each fold: the budget, part of what is reported.
        minutes: Time after which no trial is begun; the same command resumes.
        trial_seeds: Seeds of a trial, of which the mean validation macro-F1 counts.
    """

    values: Mapping[str, Any]
    out: Path
    overrides: Sequence[str] = ()
    space: Space = field(default_factory=lambda: dict(DEFAULT_SPACE))
    trials: int = 30
    minutes: float | None = None
    trial_seeds: int = 1


def search(request: SearchRequest, progress: ProgressReporter | None = None) -> JobResult:
    """Searches each fold's settings on its inner validation part and trains the fold with the best.

    The fold's test part is opened once, by the training after all folds' searches have spent their budget:
    the metrics are those of a nested cross-validation.

    Args:
        request: What and with what budget.
        progress: Told about every trial and epoch.

    Returns:
        ``table`` (a row a trial), ``search`` (budget, space, best settings) and, once the budget is spent,
        the files of the training.

    Raises:
        InputError: Wrong input, Optuna missing, or a folder with the search of another space or budget.
        TrainingError: Not one run has a result.
    """
    from wsi_ncmi.workflows.search.study import FoldTask, require_optuna

    require_optuna()
    build = partial(_configured, request.values, tuple(request.overrides))
    config = build({})
    if config.features is None or len(config.losses) != 1:
        raise InputError("A search needs features and exactly one loss.")
    if request.trials < 1 or request.trial_seeds < 1:
        raise InputError("A search needs at least one trial a fold and one seed a trial.")
    if request.space == DEFAULT_SPACE:  # a model without one of its settings is searched without it
        having = {f"model.{name}" for name in asdict(config.model)}
        space = {k: v for k, v in DEFAULT_SPACE.items() if not k.startswith("model.") or k in having}
        request = replace(request, space=space)
    check_space(request.space, build)
    base = TrainingRequest.of_config(config, config.features, request.out / "run")
    data = prepare(base)
    ensure_folder(request.out)
    _same_search(request, config)
    tasks = [
        FoldTask(number, replace(fold, test=()), request.out / "studies" / f"fold_{number}.log")
        for number, fold in enumerate(data.splits.folds)
    ]
    rows, failures = _searched(request, data.source, data.cohort, build, tasks, config, progress)
    files = _tables(request, rows)
    done = [sum(row["fold"] == task.number for row in rows) for task in tasks]
    if failures or min(done) < request.trials:
        note = f"{sum(done)} of {len(tasks) * request.trials} trials are done; the same command resumes."
        return JobResult(files, failures, (note,))
    found = [build(_best(rows, task.number)["values"]) for task in tasks]
    requests = [
        replace(
            base, model=tuned.model, losses={tuned.losses[0].name: tuned.losses[0]}, training=tuned.training
        )
        for tuned in found
    ]
    result = train_prepared(
        [(tuned, data, (number,)) for number, tuned in enumerate(requests)], config.workers, progress
    )
    trained = publish(base, data, _together(result))
    return JobResult({**trained.files, **files}, trained.failures, trained.notes)


def _configured(values: Mapping[str, Any], overrides: Sequence[str], changed: Mapping[str, Any]) -> JobConfig:
    changes = [f"{key}={json.dumps(value)}" for key, value in changed.items()]
    return load_config(None, [*overrides, *changes], values)


def _same_search(request: SearchRequest, config: JobConfig) -> None:
    """What an earlier call wrote must be the same search, but for a larger budget."""
    path = request.out / "search.json"
    content = config_adapter().dump_python(config, mode="json")
    wanted = json.loads(
        json.dumps(
            {
                "space": {key: _described(dimension) for key, dimension in request.space.items()},
                "trial_seeds": request.trial_seeds,
                **{name: content[name] for name in ("model", "losses", "training", "split", "bag")},
            }
        )
    )
    if path.is_file():
        found = as_written_now(json.loads(path.read_text(encoding="utf-8")))
        for key, value in wanted.items():
            if found.get(key) != value:
                raise InputError(f"{request.out} holds a search with another {key!r}; choose another --out.")
        if found["trials_a_fold"] > request.trials:
            raise InputError(
                f"{request.out} holds a search of {found['trials_a_fold']} trials a fold; a budget that was "
                "spent can't shrink."
            )
    write_json(path, {"schema": SEARCH_SCHEMA, "trials_a_fold": request.trials, **wanted, "best": []})


def _described(dimension: Dimension) -> dict[str, Any]:
    if dimension.choices:
        return {"choices": list(dimension.choices)}
    return {"low": dimension.low, "high": dimension.high, "log": dimension.log}


def _searched(
    request: SearchRequest,
    source: Any,
    cohort: Any,
    build: Any,
    tasks: Sequence[Any],
    config: JobConfig,
    progress: ProgressReporter | None,
) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    from wsi_ncmi.parallel import affordable_workers, run_items
    from wsi_ncmi.workflows.search.study import FoldSearch

    workers = min(config.workers or affordable_workers(), len(tasks))
    until = None if request.minutes is None else time.time() + 60 * request.minutes
    work = FoldSearch(
        source, cohort, dict(request.space), build, request.trials, until, request.trial_seeds, workers
    )
    rows: list[dict[str, Any]] = []
    failures = []
    total = len(tasks) * request.trials
    with (progress or NullProgress()).task("search", total=total, unit="trials") as task:

        def on_news(index: int, news: Mapping[str, Any]) -> None:
            task.advance(1, f"fold {news['fold']}, trial {news['trial'] + 1}: {news['score']:.3f}")

        setup = partial(_with_large_buffers, work) if workers > 1 else lambda: work
        for outcome in run_items(tasks, setup, workers=workers, on_news=on_news, catch=()):
            if outcome.problem:
                failures.append(f"fold {tasks[outcome.index].number}: {outcome.problem}")
            else:
                rows += outcome.result
    return sorted(rows, key=lambda row: (row["fold"], row["trial"])), tuple(failures)


def _with_large_buffers(work: Any) -> Any:
    from wsi_ncmi.parallel import keep_large_buffers

    keep_large_buffers()
    return work


def _best(rows: Sequence[dict[str, Any]], fold: int) -> dict[str, Any]:
    # Of equal scores the earliest: a later one was no gain.
    return max((row for row in rows if row["fold"] == fold), key=lambda row: (row["score"], -row["trial"]))


def _tables(request: SearchRequest, rows: Sequence[dict[str, Any]]) -> dict[str, Path]:
    import pandas as pd

    files = {"table": request.out / "search.csv", "search": request.out / "search.json"}
    flat = [{**{k: v for k, v in row.items() if k != "values"}, **row["values"]} for row in rows]
    with atomic_path(files["table"]) as temporary:
        pd.DataFrame(flat).to_csv(temporary, index=False, lineterminator="\n")
    content = json.loads(files["search"].read_text(encoding="utf-8"))
    folds = sorted({row["fold"] for row in rows})
    best = [{k: v for k, v in _best(rows, fold).items() if k != "problem"} for fold in folds]
    write_json(files["search"], {**content, "trials": len(rows), "best": best})
    return files


def _together(results: Sequence[Any]) -> Any:
    """The results of the folds as that of one experiment."""
    import pandas as pd

    first = results[0]
    return replace(
        first,
        predictions=pd.concat([result.predictions for result in results], ignore_index=True),
        curves=pd.concat([result.curves for result in results], ignore_index=True),
        skipped=sum(result.skipped for result in results),
        failures=tuple(failure for result in results for failure in result.failures),
    )
