"""Pooled predictions of all seeds as sums per patient, so that resampling is a matrix product."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.metrics.calibration import brier_terms, calibration_gaps, nll_terms
from wsi_ncmi.metrics.classification import one_vs_rest_areas
from wsi_ncmi.metrics.confusion import (
    Tally,
    check_probabilities,
    class_positions,
    class_ranks,
    confusion_matrix,
    confusion_terms,
)
from wsi_ncmi.metrics.information import InformationSums
from wsi_ncmi.metrics.resampling import draw_multiplicities, leave_one_out, sum_by_patient

if TYPE_CHECKING:
    import pandas as pd

_Floats = NDArray[np.float64]
_Values = dict[str, _Floats]
_ECE_BINS = 15
METRIC_PARTS = ("counts", "ranking", "information")
"""What :class:`PooledSeeds` computes."""


class PooledSeeds:
    """Predictions of one or more seeds, prepared for resampling by patient.

    A value is the mean over seeds of the metric pooled over all folds of that seed; a resample of patients is
    shared by all seeds.

    Attributes:
        patients: Distinct patients, sorted.
        seeds: Distinct seeds, sorted.
        confusion: (S, C, C) pooled confusion matrices.
    """

    def __init__(self, frame: pd.DataFrame, classes: Sequence[str], order: Sequence[str] = ()) -> None:
        self.classes = tuple(classes)
        ranks = class_ranks(self.classes, order)
        self.patients: list[str] = sorted(set(frame["case_id"]))
        self.seeds: list[int] = sorted(set(frame["seed"].tolist()))
        position = {case: i for i, case in enumerate(self.patients)}
        self._seeds = [
            _Seed(
                part, ranks, self.classes, np.asarray([position[c] for c in part["case_id"]]), len(position)
            )
            for _, part in frame.groupby("seed", sort=True)
        ]
        self.confusion: _Floats = np.stack([seed.confusion for seed in self._seeds])

    def values(
        self, weights: _Floats | None = None, *, only: Sequence[str] = METRIC_PARTS
    ) -> tuple[_Values, _Values]:
        """Metrics for patient weights.

        Args:
            weights: (R, P) multiplicity of each patient; default each once, R = 1.
            only: Of ``counts``, ``ranking`` (AUROC and AUPRC, a pass over all slides per resample) and
                ``information`` (CMI, Γ, NCMI, which cost the square of the classes).

        Returns:
            ``(overall, per_class)``: name → (R,) and name → (R, C), means over seeds; NaN where undefined for
            one of the seeds.
        """
        if weights is None:
            weights = np.ones((1, len(self.patients)))
        overall: dict[str, list[_Floats]] = {}
        per_class: dict[str, list[_Floats]] = {}
        for seed in self._seeds:
            seed_overall, seed_per_class = seed.values(weights, only)
            for name, value in seed_overall.items():
                overall.setdefault(name, []).append(value)
            for name, value in seed_per_class.items():
                per_class.setdefault(name, []).append(value)
        return (
            {name: np.mean(values, axis=0) for name, values in overall.items()},
            {name: np.mean(values, axis=0) for name, values in per_class.items()},
        )

    def bootstrap(
        self, resamples: int, seed: int, only: Sequence[str] = METRIC_PARTS
    ) -> tuple[_Values, _Values]:
        """As ``values`` for ``resamples`` draws of patients: (resamples,) and (resamples, C)."""
        # Chunks whose arrays stay in the processor's cache: 2 MB.
        width = 8 * max(len(s.truth) for s in self._seeds) if "ranking" in only else 40 * len(self.classes)
        parts = [
            self.values(weights, only=only)
            for weights in draw_multiplicities(len(self.patients), resamples, seed, width)
        ]
        return (
            {name: np.concatenate([part[0][name] for part in parts]) for name in parts[0][0]},
            {name: np.concatenate([part[1][name] for part in parts]) for name in parts[0][1]},
        )

    def jackknife(self, only: Sequence[str] = METRIC_PARTS) -> tuple[_Values, _Values]:
        """As ``values`` without one patient each: (patients,) and (patients, C)."""
        return self.values(leave_one_out(len(self.patients)), only=only)


class _Seed:
    """One seed's predictions as sums per patient."""

    def __init__(
        self,
        frame: pd.DataFrame,
        ranks: NDArray[np.int64] | None,
        classes: tuple[str, ...],
        patient: NDArray[np.int64],
        patients: int,
    ) -> None:
        c = len(classes)
        self.ranks = ranks
        self.patient = patient
        self.truth = class_positions(frame["label"].tolist(), classes)
        predicted = class_positions(frame["prediction"].tolist(), classes)
        self.p = check_probabilities(frame[[f"p_{name}" for name in classes]].to_numpy(), c)
        tally = confusion_terms(self.truth, predicted, c, ranks)
        terms = np.stack([brier_terms(self.truth, self.p), nll_terms(self.truth, self.p)], axis=1)
        gaps = calibration_gaps(self.truth, self.p, _ECE_BINS)
        self._sums = sum_by_patient(np.concatenate([gaps, terms, tally], axis=1), patient, patients)
        self._information = InformationSums(self.p, self.truth, patient, patients)
        self.confusion = confusion_matrix(self.truth, predicted, c)

    def values(self, weights: _Floats, only: Sequence[str]) -> tuple[_Values, _Values]:
        overall: _Values = {}
        per_class: _Values = {}
        if "counts" in only:
            sums = weights @ self._sums
            tally = Tally.of_sums(sums[:, _ECE_BINS + 2 :], self.ranks)
            overall, per_class = tally.overall(), tally.per_class()
        if "ranking" in only:
            per_class["auroc"], per_class["auprc"] = one_vs_rest_areas(
                self.truth, self.p, weights[:, self.patient]
            )
            overall["auroc_macro_ovr"] = per_class["auroc"].mean(axis=1)
            overall["auprc_macro"] = per_class["auprc"].mean(axis=1)
        if "counts" in only:
            total = tally.support.sum(axis=1)
            with np.errstate(invalid="ignore", divide="ignore"):
                overall["brier"] = sums[:, _ECE_BINS] / total
                overall["nll"] = sums[:, _ECE_BINS + 1] / total
                overall["ece"] = np.abs(sums[:, :_ECE_BINS]).sum(axis=1) / total
        if "information" in only:
            overall |= self._information.values(weights)
        return overall, per_class
