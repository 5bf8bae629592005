"""Results of an evaluation, and their form in ``metrics.json``."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import counted
from wsi_ncmi.metrics.resampling import bca_interval, exact_interval, percentile_interval

METRICS_SCHEMA = "wsi-ncmi/metrics/1"
NOT_INFORMATIVE = "interval not informative"
CONFIDENCE = 0.95


@dataclass(frozen=True, repr=False)
class Estimate:
    """A metric with its 95 % patient-bootstrap intervals; NaN = undefined, ``reason`` says why.

    Attributes:
        value: The metric.
        ci_low: Lower bound of the percentile interval.
        ci_high: Its upper bound.
        reason: Why something is undefined, or that the interval is exact.
        bca_low: Lower bound of the bias-corrected and accelerated interval.
        bca_high: Its upper bound.
    """

    value: float
    ci_low: float = math.nan
    ci_high: float = math.nan
    reason: str = ""
    bca_low: float = math.nan
    bca_high: float = math.nan

    def __str__(self) -> str:
        interval = f" (95 % {self.ci_low:.3f}–{self.ci_high:.3f})" if math.isfinite(self.ci_low) else ""
        return f"{self.value:.3f}{interval}{f'; {self.reason}' if self.reason else ''}"

    def __repr__(self) -> str:
        return f"<Estimate {self}>"

    def to_json(self) -> dict[str, Any]:
        """``{value, ci_low, ci_high, bca_low, bca_high}``, undefined as null, and ``reason`` if there is."""
        numbers = {key: getattr(self, key) for key in ("value", "ci_low", "ci_high", "bca_low", "bca_high")}
        content: dict[str, Any] = {key: _null_if_undefined(number) for key, number in numbers.items()}
        return content | {"reason": self.reason} if self.reason else content


def estimate(
    value: float,
    drawn: NDArray[np.float64],
    left_out: NDArray[np.float64],
    undefined: str,
    units: int | None = None,
) -> Estimate:
    """A metric with its intervals.

    Args:
        value: The metric of the patients as they are.
        drawn: Those of the bootstrap resamples, (R,); NaN = undefined.
        left_out: Those without one patient each, (P,).
        undefined: Reason to give where the value is not finite.
        units: Patients that a share is of, for its exact interval at 0 and 1; None = it is no share.
    """
    if not math.isfinite(value):
        return Estimate(math.nan, reason=undefined)
    low, high, defined = percentile_interval(drawn, CONFIDENCE)
    if math.isclose(low, high, abs_tol=1e-12):  # what every resample gives, to the rounding, is no interval
        if not units or value not in (0.0, 1.0):
            return Estimate(float(value), reason=f"{NOT_INFORMATIVE}: the same in every resample")
        low, high = exact_interval(value, units, CONFIDENCE)
        return Estimate(float(value), low, high, f"exact interval (Clopper-Pearson) of {units} patients")
    reason = "" if defined >= 0.5 else "no interval: undefined in most resamples"
    return Estimate(float(value), low, high, reason, *bca_interval(drawn, float(value), left_out, CONFIDENCE))


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (n − 1) over folds or seeds, and over how many; NaN = undefined."""

    mean: float
    sd: float
    n: int

    def to_json(self) -> dict[str, Any]:
        """``{mean, sd, n}`` with null where undefined."""
        return {"mean": _null_if_undefined(self.mean), "sd": _null_if_undefined(self.sd), "n": self.n}


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Evaluation of a predictions table.

    Attributes:
        classes: All classes of the task, in order.
        n_slides: Distinct slides.
        n_patients: Distinct patients.
        n_folds: Distinct folds.
        seeds: Distinct seeds.
        resamples: Bootstrap resamples.
        metrics: Name (``METRICS``, then ``cmi``, ``gamma``, ``ncmi``) → pooled out-of-fold value of each
            seed, averaged over seeds, with interval.
        over_folds: Metric → spread over folds (each fold's value averaged over seeds).
        over_seeds: Metric → spread over seeds of the pooled value.
        per_class: Class → ``precision``, ``recall``, ``f1``, ``auroc``, ``auprc`` → estimate.
        support: Class → slides; ``patients_of`` → patients with such a slide.
        patients_of: Class → patients.
        confusion: (C, C) ``[true, predicted]`` slides, mean over seeds.
        per_centre: Centre → metric → estimate, ``{}`` where no centre is known.
        centre_sizes: Centre → (slides, patients).
        warnings: What a reader must know before believing the numbers.
        ranking_resamples: Resamples of AUROC and AUPRC, each of which costs a pass over all slides.
        selective: Abstention (``wsi_ncmi.metrics.selective``), JSON-ready.
        operating_points: Class → operating points (``wsi_ncmi.metrics.selective``), JSON-ready.
        recalibration: What a temperature changes (``wsi_ncmi.metrics.calibration``), JSON-ready; None where
            there is nothing to fit it on.
        staging: CAMELYON-17's patient stages (``wsi_ncmi.metrics.staging``); None for other tasks.
        order: The classes from the least to the most; empty where they have no order.
    """

    classes: tuple[str, ...]
    n_slides: int
    n_patients: int
    n_folds: int
    seeds: tuple[int, ...]
    resamples: int
    metrics: Mapping[str, Estimate]
    over_folds: Mapping[str, Spread]
    over_seeds: Mapping[str, Spread]
    per_class: Mapping[str, Mapping[str, Estimate]]
    support: Mapping[str, int]
    patients_of: Mapping[str, int]
    confusion: NDArray[np.float64]
    per_centre: Mapping[str, Mapping[str, Estimate]]
    centre_sizes: Mapping[str, tuple[int, int]]
    warnings: tuple[str, ...]
    ranking_resamples: int = 0
    selective: Mapping[str, Any] = field(default_factory=dict)
    operating_points: Mapping[str, Any] = field(default_factory=dict)
    recalibration: Mapping[str, Any] | None = None
    staging: Mapping[str, Any] | None = None
    order: tuple[str, ...] = ()

    def __repr__(self) -> str:
        who = f"{counted(self.n_slides, 'slide')} of {counted(self.n_patients, 'patient')}"
        f1 = self.metrics["macro_f1"]
        return f"<Evaluation {who}, classes {', '.join(self.classes)}: macro-F1 {f1}>"

    def _repr_html_(self) -> str:
        """The metrics in a notebook."""
        rows = "".join(
            f"<tr><td>{name}</td><td>{one.value:.3f}</td><td>{one.ci_low:.3f}–{one.ci_high:.3f}</td></tr>"
            for name, one in self.metrics.items()
            if math.isfinite(one.value)
        )
        head = "<tr><th>metric</th><th>value</th><th>95 % interval</th></tr>"
        return f"<div>{escape(repr(self).strip('<>'))}<table>{head}{rows}</table></div>"

    def to_json(self) -> dict[str, Any]:
        """The content of ``metrics.json``.

        Schema ``wsi-ncmi/metrics/1``; every number at full precision, null where undefined (``reason`` says
        why)::

            schema, headline ("macro_f1"), classes, n_slides, n_patients, n_folds, seeds, resamples,
            ranking_resamples, confidence (0.95), bootstrap_unit ("patient"), pooling (how values come about)
            macro_f1, weighted_f1, …      one key a metric: {value, ci_low, ci_high (percentile interval),
                                          bca_low, bca_high (BCa interval)[, reason]}; below "{…}"
            over_folds.<metric>           {mean, sd, n}: spread over folds, seeds averaged
            over_seeds.<metric>           {mean, sd, n}: spread over seeds
            per_class.<class>             support, patients, precision, recall, f1, auroc, auprc
            confusion_matrix              {classes, rows ("true"), columns ("predicted"), counts, over}
            per_centre.<centre>           n_slides, n_patients, <metric>: {…}
            selective                     {aurc, points: [{coverage, threshold, slides, accuracy, macro_f1}]}
            operating_points.<class>      [{target_sensitivity, threshold, sensitivity, specificity, ppv, npv,
                                          sensitivity_patients, …, chosen_on}]
            recalibration                 {fitted_on, temperature, ece, nll, brier, slides, errors, runs,
                                          proven} or null
            staging                       {stages, n_patients, kappa_quadratic: {…}, accuracy: {…},
                                          confusion_matrix} or null
            order                         the classes from the least to the most; empty = without order
            warnings                      list of sentences
        """
        per_class = {
            name: {
                "support": self.support[name],
                "patients": self.patients_of[name],
                **{metric: estimate.to_json() for metric, estimate in estimates.items()},
            }
            for name, estimates in self.per_class.items()
        }
        per_centre = {
            name: {
                "n_slides": self.centre_sizes[name][0],
                "n_patients": self.centre_sizes[name][1],
                **{metric: estimate.to_json() for metric, estimate in estimates.items()},
            }
            for name, estimates in self.per_centre.items()
        }
        return {
            "schema": METRICS_SCHEMA,
            "headline": "macro_f1",
            "classes": list(self.classes),
            "n_slides": self.n_slides,
            "n_patients": self.n_patients,
            "n_folds": self.n_folds,
            "seeds": list(self.seeds),
            "resamples": self.resamples,
            "ranking_resamples": self.ranking_resamples,
            "confidence": CONFIDENCE,
            "bootstrap_unit": "patient",
            "pooling": "out-of-fold predictions pooled over folds, metric per seed, mean over seeds",
            **{name: estimate.to_json() for name, estimate in self.metrics.items()},
            "over_folds": {name: spread.to_json() for name, spread in self.over_folds.items()},
            "over_seeds": {name: spread.to_json() for name, spread in self.over_seeds.items()},
            "per_class": per_class,
            "confusion_matrix": {
                "classes": list(self.classes),
                "rows": "true",
                "columns": "predicted",
                "counts": self.confusion.tolist(),
                "over": f"mean over {len(self.seeds)} seeds" if len(self.seeds) > 1 else "one seed",
            },
            "per_centre": per_centre,
            "selective": dict(self.selective),
            "operating_points": dict(self.operating_points),
            "recalibration": self.recalibration,
            "staging": self.staging,
            "order": list(self.order),
            "warnings": list(self.warnings),
        }


def _null_if_undefined(number: float) -> float | None:
    return float(number) if math.isfinite(number) else None
