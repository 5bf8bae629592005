"""Evaluation of a predictions table: pooled out-of-fold metrics with intervals over patients."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.arguments import described
from wsi_ncmi.core.errors import InputError, counted
from wsi_ncmi.metrics.calibration import recalibrate
from wsi_ncmi.metrics.confusion import (
    CONFUSION_METRICS,
    UNORDERED,
    class_ranks,
    confusion_matrix,
    confusion_metrics,
)
from wsi_ncmi.metrics.pooled_seeds import PooledSeeds
from wsi_ncmi.metrics.predictions import check_predictions, classes_of
from wsi_ncmi.metrics.results import Estimate, Evaluation, Spread, estimate
from wsi_ncmi.metrics.selective import operating_points, selective_metrics
from wsi_ncmi.metrics.staging import evaluate_stages

if TYPE_CHECKING:
    import pandas as pd

_Floats = NDArray[np.float64]
_MAX_RANKING_RESAMPLES = 2000
_MIN_PATIENTS = 100
MIN_PATIENTS_PER_GROUP = 10
"""Below so many patients a class gets a warning and a centre no interval."""
_NOTICEABLY_UNDEFINED = 0.05
_LOG = logging.getLogger(__name__)


def evaluate_predictions(
    df: pd.DataFrame,
    classes: Sequence[str] | None = None,
    *,
    resamples: int = 10_000,
    seed: int = 0,
    validation: pd.DataFrame | None = None,
    order: Sequence[str] = (),
) -> Evaluation:
    """Evaluates out-of-fold predictions.

    The headline is macro-F1 over all classes of the task, pooled over folds for each seed and averaged over
    seeds, with a percentile and a BCa interval from drawing patients with replacement (once per resample for
    all seeds). The spread over folds and over seeds is reported apart from it: they answer other questions.

    Args:
        df: ``slide_id, case_id, fold, seed, label, prediction, p_<class>…`` and perhaps ``centre``. Without
            ``case_id`` each slide is taken for a patient of its own, with a warning; without ``slide_id``,
            ``fold`` and ``seed`` each row is another slide of one run, without ``prediction`` the most
            probable class is predicted.
        classes: All classes of the task in order; None = those of the ``p_`` columns.
        resamples: Bootstrap resamples.
        seed: Seed of the draws.
        validation: Predictions for the validation slides of each fold and seed, to fit a temperature on and,
            where there is one fold, to choose thresholds on.
        order: The classes from the least to the most, for the weighted kappas; CAMELYON-17's are known.

    Raises:
        InputError: See ``check_predictions`` and ``class_ranks``; or ``resamples`` below 1.
    """
    if not hasattr(df, "columns"):
        raise InputError(
            f"Predictions are a table of pandas, got {described(df)}; read_predictions reads a file."
        )
    if resamples < 1:
        raise InputError(f"The bootstrap needs at least 1 resample, got {resamples}.")
    names = classes_of(df) if classes is None else tuple(classes)
    frame = check_predictions(_completed(df, names), names)
    checked = None if validation is None else check_predictions(validation, names)
    pooled = PooledSeeds(frame, names, order)
    overall, by_class = pooled.values()
    drawn, drawn_by_class = pooled.bootstrap(resamples, seed, ("counts", "information"))
    ranking_resamples = min(resamples, _MAX_RANKING_RESAMPLES)
    ranked, ranked_by_class = pooled.bootstrap(ranking_resamples, seed, ("ranking",))
    drawn, drawn_by_class = {**ranked, **drawn}, {**ranked_by_class, **drawn_by_class}
    left_out, left_out_by_class = pooled.jackknife()
    ranks = class_ranks(names, order)
    shares = dict.fromkeys(("accuracy", "micro_f1"), len(pooled.patients))
    metrics = {
        name: estimate(value[0], drawn[name], left_out[name], _why(name, ranks), shares.get(name))
        for name, value in overall.items()
    }
    if math.isfinite(metrics["ece"].ci_low):
        metrics["ece"] = _without_bias(metrics["ece"], drawn["ece"])
    columns = {name: metrics.pop(name) for name in (*CONFUSION_METRICS, "auroc_macro_ovr", "auprc_macro")}
    columns |= metrics
    slides = frame.drop_duplicates("slide_id")
    patients_of, called = (
        {name: int(table.loc[table[column] == name, "case_id"].nunique()) for name in names}
        for table, column in ((slides, "label"), (frame, "prediction"))
    )
    per_class = {
        name: {
            metric: estimate(
                by_class[metric][0, i],
                drawn_by_class[metric][:, i],
                left_out_by_class[metric][:, i],
                _why(metric, ranks),
                # The patients that recall and precision are shares of.
                {"recall": patients_of[name], "precision": called[name]}.get(metric),
            )
            for metric in ("precision", "recall", "f1", "auroc", "auprc")
        }
        for i, name in enumerate(names)
    }
    per_centre, sizes = _centres(frame, names, resamples, seed)
    support = {name: int((slides["label"] == name).sum()) for name in names}
    return Evaluation(
        classes=names,
        n_slides=len(slides),
        n_patients=len(pooled.patients),
        n_folds=int(frame["fold"].nunique()),
        seeds=tuple(pooled.seeds),
        resamples=resamples,
        ranking_resamples=ranking_resamples,
        metrics=columns,
        over_folds=_spread_over_folds(frame, names, order),
        over_seeds=_spread_over_seeds(frame, names, order),
        per_class=per_class,
        support=support,
        patients_of=patients_of,
        confusion=pooled.confusion.mean(axis=0),
        per_centre=per_centre,
        centre_sizes=sizes,
        warnings=(
            *_warnings(frame, support, patients_of, len(pooled.patients)),
            *_unstable({name: values for name, values in drawn.items() if columns[name].reason != UNORDERED}),
        ),
        selective=selective_metrics(frame, names),
        operating_points=operating_points(frame, names, checked),
        recalibration=recalibrate(frame, names, checked),
        staging=evaluate_stages(frame, names, resamples=resamples, seed=seed),
        order=() if ranks is None else tuple(names[i] for i in np.argsort(ranks)),
    )


def _completed(df: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """The table with the columns that follow from others where it lacks them."""
    columns = [f"p_{name}" for name in names]
    more: dict[str, Any] = {}
    if "slide_id" not in df.columns:
        more["slide_id"] = [f"row {number}" for number in range(len(df))]
    if "case_id" not in df.columns:
        more["case_id"] = more.get("slide_id", df.get("slide_id"))
        _LOG.warning(
            "The predictions have no column 'case_id': each slide is taken for a patient of its own."
        )
    more |= {name: 0 for name in ("fold", "seed") if name not in df.columns}
    if "prediction" not in df.columns and set(columns) <= set(df.columns) and names:
        more["prediction"] = [names[place] for place in df[columns].to_numpy().argmax(axis=1)]
    return df.assign(**more) if more else df


def fold_metrics(
    frame: pd.DataFrame, classes: Sequence[str], order: Sequence[str] = ()
) -> dict[tuple[int, int], dict[str, float]]:
    """Confusion-matrix metrics of each ``(seed, fold)``, over all classes of the task."""
    ranks = class_ranks(classes, order)
    index = {name: i for i, name in enumerate(classes)}
    found: dict[tuple[int, int], dict[str, float]] = {}
    for (run_seed, fold), part in frame.groupby(["seed", "fold"], sort=True):
        truth = np.asarray([index[name] for name in part["label"]], dtype=np.int64)
        predicted = np.asarray([index[name] for name in part["prediction"]], dtype=np.int64)
        values = confusion_metrics(confusion_matrix(truth, predicted, len(classes)), ranks)
        found[cast("int", run_seed), cast("int", fold)] = {
            name: float(value) for name, value in values.items()
        }
    return found


def _without_bias(ece: Estimate, drawn: _Floats) -> Estimate:
    """The calibration error's interval without the bias of resampling.

    Noise in a bin counts as miscalibration, and a resample has noise on top of the sample's own: its values
    lie above the sample's by about as much as the sample's lies above the truth.
    """
    bias = 2.0 * (float(np.mean(drawn[np.isfinite(drawn)])) - ece.value)
    low, high = max(ece.ci_low - bias, 0.0), max(ece.ci_high - bias, ece.value)
    return replace(ece, ci_low=low, ci_high=high, bca_low=math.nan, bca_high=math.nan)


def _why(metric: str, ranks: NDArray[np.int64] | None) -> str:
    if metric in ("kappa_linear", "kappa_quadratic") and ranks is None:
        return UNORDERED
    if metric.startswith(("auroc", "auprc")):
        return "undefined: a class has no slide, or no slide is of another class"
    if metric.startswith("kappa"):
        return "undefined: truth and predictions are one and the same class"
    return "undefined: too few slides or classes"


def _spread_over_folds(
    frame: pd.DataFrame, classes: Sequence[str], order: Sequence[str]
) -> dict[str, Spread]:
    # A fold without a slide of some class leaves AUROC and its like undefined, and with it their spread.
    by_fold = [
        [PooledSeeds(part, classes, order).values()[0] for _, part in of_fold.groupby("seed", sort=True)]
        for _, of_fold in frame.groupby("fold", sort=True)
    ]
    return {
        name: _spread([float(np.mean([run[name][0] for run in runs])) for runs in by_fold])
        for name in by_fold[0][0]
    }


def _spread_over_seeds(
    frame: pd.DataFrame, classes: Sequence[str], order: Sequence[str]
) -> dict[str, Spread]:
    values = [PooledSeeds(part, classes, order).values()[0] for _, part in frame.groupby("seed", sort=True)]
    return {name: _spread([float(run[name][0]) for run in values]) for name in values[0]}


def _spread(values: Sequence[float]) -> Spread:
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return Spread(float(np.mean(values)), sd, len(values))


def _centres(
    frame: pd.DataFrame, classes: tuple[str, ...], resamples: int, seed: int
) -> tuple[dict[str, dict[str, Estimate]], dict[str, tuple[int, int]]]:
    found: dict[str, dict[str, Estimate]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    if "centre" not in frame.columns:
        return found, sizes
    known = frame[frame["centre"].notna() & (frame["centre"].astype(str) != "")]
    for centre, part in known.groupby(known["centre"].astype(str), sort=True):
        pooled = PooledSeeds(part, classes)
        overall, _ = pooled.values(only=("counts",))
        drawn, _ = pooled.bootstrap(resamples, seed, ("counts",))
        left_out, _ = pooled.jackknife(("counts",))
        missing = [name for name in classes if not (part["label"] == name).any()]
        estimates = {
            name: estimate(overall[name][0], drawn[name], left_out[name], _why(name, None), units)
            for name, units in (
                ("macro_f1", None),
                ("balanced_accuracy", None),
                ("accuracy", len(pooled.patients)),
            )
        }
        if len(pooled.patients) < MIN_PATIENTS_PER_GROUP:
            # Resampling two patients gives an interval of no width, which looks like certainty.
            reason = f"no interval: fewer than {MIN_PATIENTS_PER_GROUP} patients"
            estimates = {
                name: Estimate(one.value, reason=one.reason or reason) for name, one in estimates.items()
            }
        if missing:
            # A class that the centre never saw would enter the average as 0 and make the centre look bad.
            reason = f"undefined: no slide of class {', '.join(missing)} at this centre"
            estimates["macro_f1"] = Estimate(math.nan, reason=reason)
        found[str(centre)] = estimates
        sizes[str(centre)] = (int(part["slide_id"].nunique()), len(pooled.patients))
    return found, sizes


def _warnings(
    frame: pd.DataFrame, support: Mapping[str, int], patients_of: Mapping[str, int], n_patients: int
) -> list[str]:
    found: list[str] = []
    if n_patients < _MIN_PATIENTS:
        count = f"{n_patients} patient{'' if n_patients == 1 else 's'}"
        found.append(
            f"Only {count}: bootstrap intervals from fewer than {_MIN_PATIENTS} tend to be too narrow."
        )
    if (frame["label"] == frame["prediction"]).all():
        reach = f"{min(100, 300 / n_patients):.0f} %"
        found.append(
            f"No error among {counted(n_patients, 'patient')}: up to {reach} of further patients may have "
            f"one (rule of three, 3/{n_patients}, 95 %); the interval of what is no share, such as macro-F1, "
            "is not informative."
        )
    for name, patients in patients_of.items():
        if support[name] == 0:
            found.append(f"Class {name} has no slide here; it enters macro-F1 as 0.")
        elif patients < MIN_PATIENTS_PER_GROUP:
            count = f"{patients} patient{'' if patients == 1 else 's'}"
            found.append(f"Class {name} has only {count}; its figures are uncertain.")
    per_seed = frame.groupby("seed")["slide_id"]
    if (per_seed.count() > per_seed.nunique()).any():
        found.append(
            "Some slides are tested in several folds of a seed; pooled metrics count them each time."
        )
    if per_seed.nunique().nunique() > 1 or (per_seed.nunique() < frame["slide_id"].nunique()).any():
        found.append("The seeds tested different slides; their mean mixes test sets.")
    return found


def _unstable(drawn: Mapping[str, NDArray[np.float64]]) -> list[str]:
    shares = {name: 1.0 - float(np.isfinite(values).mean()) for name, values in drawn.items()}
    return [
        f"{name} is undefined in {share:.0%} of the resamples; its interval rests on the others."
        for name, share in shares.items()
        if share > _NOTICEABLY_UNDEFINED
    ]
