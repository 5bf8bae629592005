"""One fold's search: trials scored on the inner validation part; the test part is not at hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wsi_ncmi.cohorts import BagSource, Cohort, Fold
from wsi_ncmi.core.errors import InputError, TrainingError
from wsi_ncmi.training import BagCache, fit_in_memory
from wsi_ncmi.training.fitting import labelled_part
from wsi_ncmi.training.seeding import derive_seed
from wsi_ncmi.workflows.config import JobConfig
from wsi_ncmi.workflows.search.space import Space, suggest

if TYPE_CHECKING:
    import optuna

__all__ = ["FoldSearch", "FoldTask", "require_optuna"]

Build = Callable[[Mapping[str, Any]], JobConfig]


def require_optuna() -> None:
    """Refuses where the extra isn't installed.

    Raises:
        InputError: Always then, with what to install.
    """
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise InputError(
            "The search needs Optuna; install it with: pip install 'wsi-ncmi[search]'."
        ) from error


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
    """What a process needs to search folds; picklable.

    Attributes:
        source: The bags.
        cohort: Labels.
        space: What is searched.
        build: Configuration with a trial's values.
        trials: Finished trials a fold at most.
        until: ``time.time()`` after which no trial is begun; None = no limit.
        seeds: Seeds of each trial, of which the mean counts.
        share: Processes that share the memory of cached bags.
    """

    source: BagSource
    cohort: Cohort
    space: Space
    build: Build
    trials: int
    until: float | None
    seeds: int
    share: int = 1

    def __call__(self, task: FoldTask, tell: Callable[[Any], None]) -> list[dict[str, Any]]:
        """Searches a fold; returns a row a trial: ``fold, trial, score, seconds, problem, values``."""
        study = self._study(task)
        config = self.build({})
        cache = BagCache(self.source, config.training.cache_mib * 2**20 // self.share)
        while (number := _finished(study)) < self.trials:
            if self.until is not None and time.time() > self.until:
                break
            # A seed of its own for each trial, so that a study that was cut off goes on as it would have.
            study.sampler = _sampler(derive_seed(number, "search", task.number))
            trial = study.ask()
            values = suggest(trial, self.space)
            began = time.monotonic()
            try:
                score = float(np.mean([self._score(cache, task.fold, values, s) for s in range(self.seeds)]))
            except TrainingError as error:
                trial.set_user_attr("problem", str(error))
                score = 0.0  # a setting that diverges is worse than any other, and the study must learn it
            trial.set_user_attr("values", values)
            trial.set_user_attr("seconds", round(time.monotonic() - began, 3))
            study.tell(trial, score)
            tell({"fold": task.number, "trial": number, "score": score})
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
        config = self.build(values)
        fitted = fit_in_memory(
            cache, labelled_part("training", fold.train, self.cohort),
            labelled_part("validation", fold.validation, self.cohort), len(self.cohort.classes),
            model=config.model, loss=config.losses[0], training=config.training, seed=seed,
        )  # fmt: skip
        return float(fitted.curves[fitted.best_epoch - 1]["val_macro_f1"])


def _sampler(seed: int) -> optuna.samplers.BaseSampler:
    import optuna

    return optuna.samplers.TPESampler(seed=seed % 2**32, multivariate=False)


def _finished(study: optuna.Study) -> int:
    import optuna

    return len(study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,)))


def _rows(fold: int, study: optuna.Study) -> list[dict[str, Any]]:
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
