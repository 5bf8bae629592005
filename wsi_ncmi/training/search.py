"""Search of each fold's settings: trials scored on the inner validation part, without the test part."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wsi_ncmi.cohorts import BagSource, Cohort, Fold
from wsi_ncmi.core.errors import InputError, TrainingError
from wsi_ncmi.core.files import atomic_path, parse_json, write_json
from wsi_ncmi.core.progress import NullProgress, ProgressReporter
from wsi_ncmi.parallel import affordable_workers, keep_large_buffers, run_items
from wsi_ncmi.training.bags import BagCache
from wsi_ncmi.training.config import RunConfig
from wsi_ncmi.training.data import TrainingData
from wsi_ncmi.training.fitting import fit_in_memory, labelled_part
from wsi_ncmi.training.resume import as_written_now
from wsi_ncmi.training.sampling import derive_seed
from wsi_ncmi.training.search_space import Dimension, SearchConfig, suggest

if TYPE_CHECKING:
    import optuna

__all__ = [
    "FoldSearch",
    "FoldTask",
    "best_trial",
    "same_search",
    "search_folds",
    "search_tables",
]

SEARCH_SCHEMA = "wsi-ncmi/search/1"
Row = dict[str, Any]
"""A trial: ``fold, trial, score, seconds, problem, values``."""


def same_search(config: SearchConfig) -> None:
    """Refuses a folder with another search (a larger budget is the same one); writes ``search.json``.

    Raises:
        InputError: The folder holds a search of another space or configuration, or of more trials.
    """
    path = config.out / "search.json"
    content = config.content()
    wanted = parse_json(
        json.dumps(
            {
                "space": {key: _described(dimension) for key, dimension in config.space.items()},
                "trial_seeds": config.trial_seeds,
                **{name: content[name] for name in ("model", "losses", "training", "split", "bag")},
            }
        )
    )
    if path.is_file():
        found = as_written_now(parse_json(path.read_text(encoding="utf-8")))
        for key, value in wanted.items():
            if found.get(key) != value:
                raise InputError(f"{config.out} holds a search with another {key!r}; choose another --out.")
        if found["trials_a_fold"] > config.trials:
            raise InputError(
                f"{config.out} holds a search of {found['trials_a_fold']} trials a fold; a budget that was "
                "spent can't shrink."
            )
    write_json(path, {"schema": SEARCH_SCHEMA, "trials_a_fold": config.trials, **wanted, "best": []})


def _described(dimension: Dimension) -> dict[str, Any]:
    if dimension.choices:
        return {"choices": list(dimension.choices)}
    return {"low": dimension.low, "high": dimension.high, "log": dimension.log}


def search_folds(
    config: SearchConfig, data: TrainingData, progress: ProgressReporter | None = None
) -> tuple[list[Row], tuple[str, ...]]:
    """Spends the budget of every fold, as far as the time allows; what is done already is not done again.

    Args:
        config: What to search.
        data: Bags, labels and folds.
        progress: Told about every trial.

    Returns:
        All trials in order, and a sentence for each fold whose process was lost.
    """
    tasks = [
        FoldTask(number, replace(fold, test=()), config.out / "studies" / f"fold_{number}.log")
        for number, fold in enumerate(data.splits.folds)
    ]
    workers = min(config.workers or affordable_workers(), len(tasks))
    until = None if config.minutes is None else time.time() + 60 * config.minutes
    work = FoldSearch(config, data.source, data.cohort, until, workers)
    rows: list[Row] = []
    failures: list[str] = []
    with (progress or NullProgress()).task("search", total=len(tasks) * config.trials, unit="trials") as task:

        def on_trial(index: int, row: Mapping[str, Any]) -> None:
            task.advance(1, f"fold {row['fold']}, trial {row['trial'] + 1}: {row['score']:.3f}")

        setup = partial(_with_large_buffers, work) if workers > 1 else lambda: work
        for outcome in run_items(tasks, setup, workers=workers, on_news=on_trial, catch=()):
            if outcome.problem:
                failures.append(f"fold {tasks[outcome.index].number}: {outcome.problem}")
            else:
                rows += outcome.result
    return sorted(rows, key=lambda row: (row["fold"], row["trial"])), tuple(failures)


def _with_large_buffers(work: FoldSearch) -> FoldSearch:
    keep_large_buffers()
    return work


@dataclass(frozen=True)
class FoldTask:
    """A fold to search.

    Attributes:
        number: Position of the fold.
        fold: Its training and validation parts; the test part is left out.
        journal: File of the study.
    """

    number: int
    fold: Fold
    journal: Path


@dataclass(frozen=True)
class FoldSearch:
    """Searches folds, in any process.

    Attributes:
        config: Space, trials and seeds; its values are those of a trial that changes none.
        source: The bags.
        cohort: Labels.
        until: ``time.time()`` after which no trial is begun; None = no limit.
        share: Processes that share the memory of cached bags.
    """

    config: SearchConfig
    source: BagSource
    cohort: Cohort
    until: float | None
    share: int = 1

    def __call__(self, task: FoldTask, callback: Callable[[Any], None]) -> list[Row]:
        """Searches a fold and returns its trials."""
        study = self._study(task)
        cache = BagCache(self.source, self.config.training.cache_mib * 2**20 // self.share)
        while (number := _finished(study)) < self.config.trials:
            if self.until is not None and time.time() > self.until:
                break
            # A seed of its own for each trial, so that a study that was cut off resumes as it would have.
            study.sampler = _sampler(derive_seed(number, "search", task.number))
            trial = study.ask()
            values = suggest(trial, self.config.space)
            began = time.monotonic()
            try:
                seeds = range(self.config.trial_seeds)
                score = float(np.mean([self._score(cache, task.fold, values, seed) for seed in seeds]))
            except TrainingError as error:
                trial.set_user_attr("problem", str(error))
                score = 0.0  # a setting that diverges is worse than any other, and the study must learn it
            trial.set_user_attr("values", values)
            trial.set_user_attr("seconds", round(time.monotonic() - began, 3))
            study.tell(trial, score)
            callback({"fold": task.number, "trial": number, "score": score})
        return _rows(task.number, study)

    def _study(self, task: FoldTask) -> optuna.Study:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        task.journal.parent.mkdir(parents=True, exist_ok=True)
        study = optuna.create_study(
            study_name=f"fold_{task.number}", direction="maximize", load_if_exists=True,
            storage=JournalStorage(JournalFileBackend(str(task.journal))),
        )  # fmt: skip
        for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)  # it was cut off
        return study

    def _score(self, cache: BagCache, fold: Fold, values: Mapping[str, Any], seed: int) -> float:
        config = self.config.with_values(values)
        fitted = fit_in_memory(
            cache, labelled_part("training", fold.train, self.cohort),
            labelled_part("validation", fold.validation, self.cohort), len(self.cohort.classes),
            RunConfig(
                model=config.model, loss=config.losses[0], training=config.training, seed=seed,
                init=config.init,
            ),
        )  # fmt: skip
        return float(fitted.curves[fitted.best_epoch - 1]["val_macro_f1"])


def _sampler(seed: int) -> optuna.samplers.BaseSampler:
    import optuna

    return optuna.samplers.TPESampler(seed=seed % 2**32, multivariate=False)


def _finished(study: optuna.Study) -> int:
    import optuna

    return len(study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,)))


def _rows(fold: int, study: optuna.Study) -> list[Row]:
    import optuna

    finished = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    return [
        {
            "fold": fold,
            "trial": number,
            "score": trial.value,
            "seconds": trial.user_attrs["seconds"],
            "problem": trial.user_attrs.get("problem", ""),
            "values": trial.user_attrs["values"],
        }
        for number, trial in enumerate(finished)
    ]


def best_trial(rows: Sequence[Row], fold: int) -> Row:
    """The trial with the best score of a fold; of equal ones the earliest: a later one was no gain."""
    return max((row for row in rows if row["fold"] == fold), key=lambda row: (row["score"], -row["trial"]))


def search_tables(config: SearchConfig, rows: Sequence[Row]) -> dict[str, Path]:
    """Writes ``search.csv`` (a row a trial) and the best trials into ``search.json``.

    Returns:
        ``table`` and ``search``.
    """
    import pandas as pd

    files = {"table": config.out / "search.csv", "search": config.out / "search.json"}
    flat = [{**{k: v for k, v in row.items() if k != "values"}, **row["values"]} for row in rows]
    with atomic_path(files["table"]) as temporary:
        pd.DataFrame(flat).to_csv(temporary, index=False, lineterminator="\n")
    content = parse_json(files["search"].read_text(encoding="utf-8"))
    folds = sorted({row["fold"] for row in rows})
    best = [{k: v for k, v in best_trial(rows, fold).items() if k != "problem"} for fold in folds]
    write_json(files["search"], {**content, "trials": len(rows), "best": best})
    return files
