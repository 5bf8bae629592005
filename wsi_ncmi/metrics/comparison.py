"""Paired comparison of two runs on the same slides, folds and seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.metrics.evaluation import fold_metrics
from wsi_ncmi.metrics.pooled_seeds import PooledSeeds
from wsi_ncmi.metrics.predictions import check_predictions, classes_of
from wsi_ncmi.metrics.resampling import percentile_interval

if TYPE_CHECKING:
    import pandas as pd

_TIE = 1e-12


@dataclass(frozen=True)
class PairedComparison:
    """Run A minus run B in macro-F1.

    Runs of other folds or seeds are paired by slide and patient alone: there is an interval, but no test over
    folds and seeds and no count of wins.

    Attributes:
        difference: Of the pooled out-of-fold values, averaged over seeds.
        ci_low: Lower bound of the 95 % interval from drawing patients, the same for both runs; NaN where
            every resample gives the same difference.
        ci_high: Its upper bound.
        t: Corrected resampled t statistic over the fold × seed differences; NaN where undefined.
        p_value: Its two-sided p; NaN where undefined.
        wins: Fold × seed runs in which A is better.
        ties: In which they are equal.
        losses: In which B is better.
        only_a: Slides that A alone predicts right, of runs with one prediction a slide; else 0.
        only_b: Those that B alone predicts right.
        mcnemar_p: Two-sided p of McNemar's exact test on the two; NaN where there are none.
    """

    difference: float
    ci_low: float
    ci_high: float
    t: float
    p_value: float
    wins: int
    ties: int
    losses: int
    only_a: int = 0
    only_b: int = 0
    mcnemar_p: float = math.nan

    @property
    def runs(self) -> int:
        """Pairs of runs; 0 where folds or seeds differ."""
        return self.wins + self.ties + self.losses

    def to_json(self) -> dict[str, Any]:
        """All fields, undefined as null."""
        return {
            name: (None if isinstance(value, float) and not math.isfinite(value) else value)
            for name, value in vars(self).items()
        }


def compare_paired(
    df_a: pd.DataFrame,
    df_b: pd.DataFrame,
    classes: Sequence[str] | None = None,
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> PairedComparison:
    """Compares the macro-F1 of two runs.

    The interval says how the difference would vary with other patients for these trained models; the t-test
    how it varies with the training (folds and seeds), corrected for training sets that overlap. Where the two
    were trained on other folds or with other seeds, no runs belong together and only the interval is given.

    Args:
        df_a: Predictions of run A.
        df_b: Predictions of run B on the same slides.
        classes: All classes in order; default those of A's ``p_`` columns.
        resamples: Bootstrap resamples.
        seed: Seed of the draws.

    Raises:
        InputError: The runs tested other slides or disagree on a patient or label, or see
            ``check_predictions``.
    """
    names = tuple(classes) if classes is not None else classes_of(df_a)
    a = _sorted(check_predictions(df_a, names, source="The predictions of run A"))
    b = _sorted(check_predictions(df_b, names, source="The predictions of run B"))
    _check_same_slides(a, b)
    keys = ["seed", "fold", "slide_id"]
    same_runs = len(a) == len(b) and bool((a[keys].to_numpy() == b[keys].to_numpy()).all())
    pooled_a, pooled_b = PooledSeeds(a, names), PooledSeeds(b, names)
    difference = (
        pooled_a.values(only=("counts",))[0]["macro_f1"] - pooled_b.values(only=("counts",))[0]["macro_f1"]
    )
    # The same seed and patients give the same draws in both.
    drawn_a = pooled_a.bootstrap(resamples, seed, ("counts",))[0]["macro_f1"]
    drawn_b = pooled_b.bootstrap(resamples, seed, ("counts",))[0]["macro_f1"]
    low, high, _ = percentile_interval(drawn_a - drawn_b)
    if math.isclose(
        low, high, abs_tol=1e-12
    ):  # two runs that never differ say nothing of how much others would
        low = high = math.nan
    runs_a, runs_b = fold_metrics(a, names), fold_metrics(b, names)
    per_run = np.asarray([runs_a[k]["macro_f1"] - runs_b[k]["macro_f1"] for k in runs_a if same_runs])
    t, p_value = corrected_resampled_t_test(per_run, _test_to_train(a))
    return PairedComparison(
        difference=float(difference[0]),
        ci_low=low,
        ci_high=high,
        t=t,
        p_value=p_value,
        wins=int((per_run > _TIE).sum()),
        ties=int((np.abs(per_run) <= _TIE).sum()),
        losses=int((per_run < -_TIE).sum()),
        **_discordant(a, b),
    )


def mcnemar_test(only_a: int, only_b: int) -> float:
    """McNemar's exact test of two classifiers on the same slides (Psychometrika 12, 1947; binomial form).

    It takes slides for independent; those of one patient are not quite.

    Args:
        only_a: Slides that only A predicts right.
        only_b: Slides that only B predicts right.

    Returns:
        Two-sided p; NaN where no slide tells the two apart.
    """
    from scipy.special import bdtr

    n = only_a + only_b
    return min(1.0, 2.0 * float(bdtr(min(only_a, only_b), n, 0.5))) if n else math.nan


def _discordant(a: pd.DataFrame, b: pd.DataFrame) -> dict[str, Any]:
    if not (a["slide_id"].is_unique and b["slide_id"].is_unique):
        return {}
    right_a, right_b = (
        (frame["prediction"] == frame["label"]).to_numpy()
        for frame in (each.sort_values("slide_id") for each in (a, b))
    )
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    return {"only_a": only_a, "only_b": only_b, "mcnemar_p": mcnemar_test(only_a, only_b)}


def corrected_resampled_t_test(differences: NDArray[np.float64], test_to_train: float) -> tuple[float, float]:
    """Nadeau & Bengio's corrected resampled t-test (Machine Learning 52, 2003).

    ``t = mean / sqrt((1/n + n_test/n_train) · variance)`` with n − 1 degrees of freedom: the plain t-test
    takes runs for independent that share most of their training slides.

    Args:
        differences: (n,) of the runs.
        test_to_train: Test size over training size.

    Returns:
        ``(t, two-sided p)``; NaN for fewer than two runs, equal differences or an unknown ratio.
    """
    from scipy.special import stdtr  # the t distribution without the second that scipy.stats takes to load

    n = len(differences)
    if n < 2 or not math.isfinite(test_to_train):
        return math.nan, math.nan
    variance = float(np.var(differences, ddof=1))
    if variance <= _TIE**2:
        return math.nan, math.nan
    t = float(differences.mean()) / math.sqrt((1.0 / n + test_to_train) * variance)
    return t, float(2.0 * stdtr(n - 1, -abs(t)))


def _check_same_slides(a: pd.DataFrame, b: pd.DataFrame) -> None:
    columns = ["slide_id", "case_id", "label"]
    slides_a, slides_b = (set(map(tuple, frame[columns].to_numpy())) for frame in (a, b))
    if slides_a != slides_b:
        example = min(slides_a ^ slides_b)
        raise InputError(
            f"The two runs aren't paired: slides, patients and labels must be the same in both, but "
            f"{example[0]!r} (patient {example[1]}, {example[2]}) is in one only."
        )


def _test_to_train(frame: pd.DataFrame) -> float:
    # Training slides of a fold = all slides of the seed that it doesn't test (validation included).
    ratios = []
    for _, of_seed in frame.groupby("seed"):
        total = of_seed["slide_id"].nunique()
        for _, of_fold in of_seed.groupby("fold"):
            tested = of_fold["slide_id"].nunique()
            if tested < total:
                ratios.append(tested / (total - tested))
    # A single test part (hold-out) says nothing about the size of the training part: no test then.
    return float(np.mean(ratios)) if ratios else math.nan


def _sorted(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.sort_values(["seed", "fold", "slide_id"]).reset_index(drop=True)
