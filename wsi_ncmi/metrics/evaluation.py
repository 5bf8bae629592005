"""Evaluation of a predictions table: pooled out-of-fold metrics with intervals over patients."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.metrics.bootstrap import draw_multiplicities, leave_one_out, sum_by_patient
from wsi_ncmi.metrics.calibration import brier_terms, nll_terms, recalibrate
from wsi_ncmi.metrics.classification import one_vs_rest_auroc, one_vs_rest_average_precision
from wsi_ncmi.metrics.confusion import (
    CONFUSION_METRICS,
    check_probabilities,
    class_positions,
    confusion_matrix,
    confusion_metrics,
    per_class_metrics,
)
from wsi_ncmi.metrics.information import information_of_sums, information_terms
from wsi_ncmi.metrics.predictions import check_predictions
from wsi_ncmi.metrics.results import Estimate, Evaluation, Spread, estimate
from wsi_ncmi.metrics.selective import operating_points, selective_metrics
from wsi_ncmi.metrics.staging import evaluate_stages

if TYPE_CHECKING:
    import pandas as pd

_Floats = NDArray[np.float64]
_Values = dict[str, _Floats]
_ECE_BINS = 15


class PooledSeeds:
    """Predictions of one or more seeds, prepared for resampling by patient.

    A value is the mean over seeds of the metric pooled over all folds of that seed; a resample of patients is
    shared by all seeds.

    Attributes:
        patients: Distinct patients, sorted.
        seeds: Distinct seeds, sorted.
        confusion: (S, C, C) pooled confusion matrices.
    """

    def __init__(self, frame: pd.DataFrame, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self.patients: list[str] = sorted(set(frame["case_id"]))
        self.seeds: list[int] = sorted(set(frame["seed"].tolist()))
        position = {case: i for i, case in enumerate(self.patients)}
        self._seeds = [
            _Seed(part, self.classes, np.asarray([position[c] for c in part["case_id"]]), len(self.patients))
            for _, part in frame.groupby("seed", sort=True)
        ]
        self.confusion: _Floats = np.stack([seed.confusion for seed in self._seeds])

    def values(self, weights: _Floats | None = None, *, ranking: bool = True) -> tuple[_Values, _Values]:
        """Metrics for patient weights.

        Args:
            weights: (R, P) multiplicity of each patient; default each once, R = 1.
            ranking: Whether to compute AUROC and AUPRC, which cost a pass over all slides per resample.

        Returns:
            ``(overall, per_class)``: name → (R,) and name → (R, C), means over seeds; NaN where undefined for
            one of the seeds.
        """
        if weights is None:
            weights = np.ones((1, len(self.patients)))
        overall: dict[str, list[_Floats]] = {}
        per_class: dict[str, list[_Floats]] = {}
        for seed in self._seeds:
            seed_overall, seed_per_class = seed.values(weights, ranking=ranking)
            for name, value in seed_overall.items():
                overall.setdefault(name, []).append(value)
            for name, value in seed_per_class.items():
                per_class.setdefault(name, []).append(value)
        return (
            {name: np.mean(values, axis=0) for name, values in overall.items()},
            {name: np.mean(values, axis=0) for name, values in per_class.items()},
        )

    def bootstrap(self, resamples: int, seed: int, *, ranking: bool = True) -> tuple[_Values, _Values]:
        """As ``values`` for ``resamples`` draws of patients: (resamples,) and (resamples, C)."""
        width = max(len(s.truth) for s in self._seeds) if ranking else 3 * len(self.classes) ** 2
        parts = [
            self.values(weights, ranking=ranking)
            for weights in draw_multiplicities(len(self.patients), resamples, seed, width)
        ]
        return (
            {name: np.concatenate([part[0][name] for part in parts]) for name in parts[0][0]},
            {name: np.concatenate([part[1][name] for part in parts]) for name in parts[0][1]},
        )

    def jackknife(self, *, ranking: bool = True) -> tuple[_Values, _Values]:
        """As ``values`` without one patient each: (patients,) and (patients, C)."""
        return self.values(leave_one_out(len(self.patients)), ranking=ranking)


class _Seed:
    """One seed's predictions as sums per patient."""

    def __init__(
        self, frame: pd.DataFrame, classes: tuple[str, ...], patient: NDArray[np.int64], patients: int
    ) -> None:
        c = len(classes)
        self.patient = patient
        self.truth = class_positions(frame["label"].tolist(), classes)
        predicted = class_positions(frame["prediction"].tolist(), classes)
        self.p = check_probabilities(frame[[f"p_{name}" for name in classes]].to_numpy(), c)
        cells = np.eye(c * c)[self.truth * c + predicted]
        confidence = self.p.max(axis=1)
        gap = confidence - (self.p.argmax(axis=1) == self.truth)
        which = np.clip(np.ceil(confidence * _ECE_BINS).astype(np.int64) - 1, 0, _ECE_BINS - 1)
        gaps = np.eye(_ECE_BINS)[which] * gap[:, None]
        terms = np.stack([brier_terms(self.truth, self.p), nll_terms(self.truth, self.p)], axis=1)
        information = information_terms(self.p, self.truth)
        columns = np.concatenate([cells, terms, gaps, information], axis=1)
        self._sums = sum_by_patient(columns, patient, patients)
        self.confusion: _Floats = self._sums[:, : c * c].sum(axis=0).reshape(c, c)

    def values(self, weights: _Floats, *, ranking: bool) -> tuple[_Values, _Values]:
        c = self.p.shape[1]
        sums = weights @ self._sums
        matrices = sums[:, : c * c].reshape(-1, c, c)
        total = matrices.sum(axis=(1, 2))
        overall = confusion_metrics(matrices)
        per_class = per_class_metrics(matrices)
        if ranking:
            slide_weights = weights[:, self.patient]
            per_class["auroc"] = one_vs_rest_auroc(self.truth, self.p, slide_weights)
            per_class["auprc"] = one_vs_rest_average_precision(self.truth, self.p, slide_weights)
            overall["auroc_macro_ovr"] = per_class["auroc"].mean(axis=1)
            overall["auprc_macro"] = per_class["auprc"].mean(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            overall["brier"] = sums[:, c * c] / total
            overall["nll"] = sums[:, c * c + 1] / total
            gaps = sums[:, c * c + 2 : c * c + 2 + _ECE_BINS]
            overall["ece"] = np.abs(gaps).sum(axis=1) / total
        overall |= information_of_sums(sums[:, c * c + 2 + _ECE_BINS :], c)
        return overall, per_class


_MAX_RANKING_RESAMPLES = 2000
_MIN_PATIENTS = 100
MIN_PATIENTS_PER_GROUP = 10
"""Below so many patients a class gets a warning and a centre no interval."""
_NOTICEABLY_UNDEFINED = 0.05


def evaluate_predictions(
    df: pd.DataFrame,
    classes: Sequence[str],
    *,
    resamples: int = 10_000,
    seed: int = 0,
    validation: pd.DataFrame | None = None,
) -> Evaluation:
    """Evaluates out-of-fold predictions.

    The headline is macro-F1 over all classes of the task, pooled over folds for each seed and averaged over
    seeds, with a percentile and a BCa interval from drawing patients with replacement (once per resample for
    all seeds). The spread over folds and over seeds is reported apart from it: they answer other questions.

    Args:
        df: ``slide_id, case_id, fold, seed, label, prediction, p_<class>…`` and perhaps ``centre``.
        classes: All classes of the task in order.
        resamples: Bootstrap resamples.
        seed: Seed of the draws.
        validation: Predictions for the validation slides of each fold and seed, to fit a temperature on and,
            where there is one fold, to choose thresholds on.

    Raises:
        InputError: See ``check_predictions``; or ``resamples`` below 1.
    """
    if resamples < 1:
        raise InputError(f"The bootstrap needs at least 1 resample, got {resamples}.")
    frame = check_predictions(df, classes)
    names = tuple(classes)
    checked = None if validation is None else check_predictions(validation, names)
    pooled = PooledSeeds(frame, names)
    overall, by_class = pooled.values()
    drawn, drawn_by_class = pooled.bootstrap(resamples, seed, ranking=False)
    ranking_resamples = min(resamples, _MAX_RANKING_RESAMPLES)
    ranked, ranked_by_class = pooled.bootstrap(ranking_resamples, seed)
    drawn, drawn_by_class = {**ranked, **drawn}, {**ranked_by_class, **drawn_by_class}
    left_out, left_out_by_class = pooled.jackknife()
    metrics = {
        name: estimate(value[0], drawn[name], left_out[name], _why(name)) for name, value in overall.items()
    }
    ordered = {name: metrics.pop(name) for name in (*CONFUSION_METRICS, "auroc_macro_ovr", "auprc_macro")}
    ordered |= metrics
    per_class = {
        name: {
            metric: estimate(
                by_class[metric][0, i],
                drawn_by_class[metric][:, i],
                left_out_by_class[metric][:, i],
                _why(metric),
            )
            for metric in ("precision", "recall", "f1", "auroc", "auprc")
        }
        for i, name in enumerate(names)
    }
    slides = frame.drop_duplicates("slide_id")
    per_centre, sizes = _centres(frame, names, resamples, seed)
    support = {name: int((slides["label"] == name).sum()) for name in names}
    patients_of = {name: int(slides.loc[slides["label"] == name, "case_id"].nunique()) for name in names}
    return Evaluation(
        classes=names,
        n_slides=len(slides),
        n_patients=len(pooled.patients),
        n_folds=int(frame["fold"].nunique()),
        seeds=tuple(pooled.seeds),
        resamples=resamples,
        ranking_resamples=ranking_resamples,
        metrics=ordered,
        over_folds=_spread_over_folds(frame, names),
        over_seeds=_spread_over_seeds(frame, names),
        per_class=per_class,
        support=support,
        patients_of=patients_of,
        confusion=pooled.confusion.mean(axis=0),
        per_centre=per_centre,
        centre_sizes=sizes,
        warnings=(*_warnings(frame, support, patients_of, len(pooled.patients)), *_unstable(drawn)),
        selective=selective_metrics(frame, names),
        operating_points=operating_points(frame, names, checked),
        recalibration=recalibrate(frame, names, checked),
        staging=evaluate_stages(frame, names, resamples=resamples, seed=seed),
    )


def fold_metrics(frame: pd.DataFrame, classes: Sequence[str]) -> dict[tuple[int, int], dict[str, float]]:
    """Confusion-matrix metrics of each ``(seed, fold)``, over all classes of the task."""
    index = {name: i for i, name in enumerate(classes)}
    found: dict[tuple[int, int], dict[str, float]] = {}
    for (run_seed, fold), part in frame.groupby(["seed", "fold"], sort=True):
        truth = np.asarray([index[name] for name in part["label"]], dtype=np.int64)
        predicted = np.asarray([index[name] for name in part["prediction"]], dtype=np.int64)
        values = confusion_metrics(confusion_matrix(truth, predicted, len(classes)))
        found[cast("int", run_seed), cast("int", fold)] = {
            name: float(value) for name, value in values.items()
        }
    return found


def _why(metric: str) -> str:
    if metric.startswith(("auroc", "auprc")):
        return "undefined: a class has no slide, or no slide is of another class"
    if metric.startswith("kappa"):
        return "undefined: truth and predictions are one and the same class"
    return "undefined: too few slides or classes"


def _spread_over_folds(frame: pd.DataFrame, classes: Sequence[str]) -> dict[str, Spread]:
    # A fold without a slide of some class leaves AUROC and its like undefined, and with it their spread.
    by_fold = [
        [PooledSeeds(part, classes).values()[0] for _, part in of_fold.groupby("seed", sort=True)]
        for _, of_fold in frame.groupby("fold", sort=True)
    ]
    return {
        name: _spread([float(np.mean([run[name][0] for run in runs])) for runs in by_fold])
        for name in by_fold[0][0]
    }


def _spread_over_seeds(frame: pd.DataFrame, classes: Sequence[str]) -> dict[str, Spread]:
    values = [PooledSeeds(part, classes).values()[0] for _, part in frame.groupby("seed", sort=True)]
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
        overall, _ = pooled.values(ranking=False)
        drawn, _ = pooled.bootstrap(resamples, seed, ranking=False)
        left_out, _ = pooled.jackknife(ranking=False)
        missing = [name for name in classes if not (part["label"] == name).any()]
        estimates = {
            name: estimate(overall[name][0], drawn[name], left_out[name], _why(name))
            for name in ("macro_f1", "balanced_accuracy", "accuracy")
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
