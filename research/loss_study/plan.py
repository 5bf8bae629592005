"""The runs of each stage of the study, and the inner folds on which they are scored."""

from collections.abc import Sequence
from dataclasses import dataclass

from research.loss_study.regimes import Regime
from research.loss_study.settings import Setting
from wsi_ncmi.cohorts import Cohort, SplitConfig, Splits, make_splits

__all__ = ["KEY", "STAGES", "StudyRun", "inner_folds", "plan_study"]

STAGES = ("explore", "sensitivity", "ablation", "leads", "models", "tune", "confirm")
"""All but ``confirm`` score on parts of the training slides only; ``confirm`` opens the test folds."""

KEY = ("stage", "cohort", "regime", "loss", "setting", "fold", "seed")


@dataclass(frozen=True, kw_only=True)
class StudyRun:
    """One training of the study.

    Attributes:
        stage: One of ``STAGES``.
        cohort: Name of the cohort.
        regime: The training data that the loss sees.
        setting: The loss and its setting.
        fold: Position of the fold.
        seed: Seed of weights, order and the regime's draws.
    """

    stage: str
    cohort: str
    regime: Regime
    setting: Setting
    fold: int
    seed: int

    @property
    def key(self) -> tuple[str, ...]:
        """What tells the run from all others, as it stands in the table (see ``KEY``)."""
        return (
            self.stage, self.cohort, self.regime.name, self.setting.loss, self.setting.name,
            str(self.fold), str(self.seed),
        )  # fmt: skip


def plan_study(
    stage: str,
    cohorts: Sequence[str],
    regimes: Sequence[Regime],
    settings: Sequence[Setting],
    folds: Sequence[int],
    seeds: Sequence[int],
) -> list[StudyRun]:
    """All runs, seed by seed and fold by fold: wherever it stops, the losses have the same runs."""
    return [
        StudyRun(stage=stage, cohort=cohort, regime=regime, setting=setting, fold=fold, seed=seed)
        for seed in seeds
        for fold in folds
        for regime in regimes
        for cohort in cohorts
        for setting in settings
    ]


def inner_folds(cohort: Cohort, splits: Splits, options: SplitConfig | None = None) -> Splits:
    """For each fold one made of its training and validation slides alone, split again by patient.

    The inner fold's own test part stands in for the outer fold's, which is in none of its parts. Of one outer
    fold all inner folds are given.

    Args:
        cohort: Labels and patients.
        splits: The outer folds.
        options: How to split again; default five folds by patient.
    """
    found = []
    for fold in splits.folds:
        rows = [cohort.by_slide[slide_id] for slide_id in (*fold.train, *fold.validation)]
        inner = make_splits(Cohort(tuple(rows), cohort.classes), options or SplitConfig(folds=5, seed=1))
        found += inner.folds if len(splits.folds) == 1 else inner.folds[:1]
    return Splits(tuple(found))
