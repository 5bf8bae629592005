"""Search of settings by fold, then the folds trained and tested with what each has found."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from wsi_ncmi.core.extras import require
from wsi_ncmi.core.files import job_folder
from wsi_ncmi.core.progress import ProgressReporter
from wsi_ncmi.workflows.result import JobResult
from wsi_ncmi.workflows.training import published

if TYPE_CHECKING:
    from wsi_ncmi.training import ExperimentResult
    from wsi_ncmi.training.search_space import SearchConfig


def search(config: SearchConfig, progress: ProgressReporter | None = None) -> JobResult:
    """Searches each fold's settings on its inner validation part and trains the fold with the best.

    The fold's test part is opened once, by the training after all folds' searches have spent their budget:
    the metrics are those of a nested cross-validation.

    Args:
        config: What and with what budget.
        progress: Told about every trial and epoch.

    Returns:
        ``table`` (a row a trial), ``search`` (budget, space, best settings) and, once the budget is spent,
        the files of the training.

    Raises:
        InputError: Wrong input, Optuna missing, or a folder with the search of another space or budget.
        TrainingError: Not one run has a result.
    """
    from wsi_ncmi.training import Experiment, prepare_data, run_experiments
    from wsi_ncmi.training.search import best_trial, same_search, search_folds, search_tables

    require(("search",), "The search")
    config = config.checked()
    data = prepare_data(config)
    job_folder(config.out)
    same_search(config)
    rows, failures = search_folds(config, data, progress)
    files = search_tables(config, rows)
    folds = range(len(data.splits.folds))
    done = [sum(row["fold"] == fold for row in rows) for fold in folds]
    if failures or min(done) < config.trials:
        note = f"{sum(done)} of {len(folds) * config.trials} trials are done; the same command resumes."
        return JobResult(files, failures, (note,))
    base = replace(config, out=config.out / "run")
    tuned = [base.with_values(best_trial(rows, fold)["values"]) for fold in folds]
    experiments = [Experiment(each, data, (fold,)) for fold, each in enumerate(tuned)]
    trained = published(base, data, _joined(run_experiments(experiments, progress)))
    return JobResult({**trained.files, **files}, trained.failures, trained.notes)


def _joined(results: list[ExperimentResult]) -> ExperimentResult:
    """The results of the folds as that of one experiment."""
    import pandas as pd

    return replace(
        results[0],
        predictions=pd.concat([result.predictions for result in results], ignore_index=True),
        curves=pd.concat([result.curves for result in results], ignore_index=True),
        skipped=sum(result.skipped for result in results),
        failures=tuple(failure for result in results for failure in result.failures),
    )
