"""The stages of the study by name, as a person starts them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from research.loss_study.exploration import ablation_settings, exploration_settings, sensitivity_settings
from research.loss_study.grid import GRID, Setting
from research.loss_study.job import StudyRequest, run_study
from research.loss_study.regimes import REGIMES
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.progress import ProgressReporter
from wsi_ncmi.mil import model_config
from wsi_ncmi.training import TrainingConfig
from wsi_ncmi.workflows.result import JobResult

__all__ = ["study_stage"]


def study_stage(
    stage: str,
    out: Path,
    cohorts: Mapping[str, Path],
    *,
    regimes: Sequence[str] | None = None,
    losses: Sequence[str] | None = None,
    folds: Sequence[int] = (0, 1, 2, 3, 4),
    seeds: Sequence[int] | None = None,
    model: str = "abmil",
    batch_size: int = 16,
    workers: int = 1,
    minutes: float | None = None,
    progress: ProgressReporter | None = None,
) -> JobResult:
    """Does one stage: explore, sensitivity, ablation, tune, choose, confirm or tables.

    Args:
        stage: Which.
        out: Folder of the study's tables.
        cohorts: Name → packed features with labels; the same names in every stage.
        regimes: Names of regimes; default all.
        losses: Names of losses; default all.
        folds: Positions of folds.
        seeds: Seeds; default 0 for the inner stages and 0–4 for ``confirm``.
        model: Aggregator.
        batch_size: Bags a step.
        workers: Processes.
        minutes: Time after which no further run is begun.
        progress: Told about every run.

    Raises:
        InputError: Something is missing or unknown; nothing was started.
    """
    from research.loss_study.tables import choose_settings, chosen_settings, write_tables

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
    elif stage == "confirm":
        settings = chosen_settings(out)
    else:
        settings = [setting for of_loss in GRID.values() for setting in of_loss]
    if losses is not None:
        unknown = set(losses) - {setting.loss for setting in settings}
        if unknown:
            raise InputError(f"The stage {stage!r} has no loss {sorted(unknown)[0]!r}.")
        settings = [setting for setting in settings if setting.loss in losses]
    request = StudyRequest(
        features=cohorts, out=out, stage=stage, settings=settings, regimes=regimes or tuple(REGIMES),
        folds=folds, seeds=seeds or ((0, 1, 2, 3, 4) if stage == "confirm" else (0,)),
        model=model_config(name=model), training=TrainingConfig(batch_size=batch_size, device="cpu"),
        workers=workers, minutes=minutes,
    )  # fmt: skip
    return run_study(request, progress)
