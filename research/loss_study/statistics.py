"""NCMI against the strongest rival: intervals from drawing patients and seeds, over all regimes jointly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from research.loss_study.run import predicted_classes
from research.loss_study.settings import ABLATIONS, REFERENCES
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.metrics.comparison import corrected_resampled_t_test
from wsi_ncmi.metrics.confusion import confusion_metrics

if TYPE_CHECKING:
    import pandas as pd

    from research.loss_study.run import StudyCohort

__all__ = ["Cells", "compare_with_rivals"]

_TIE = 1e-12
_REPLICATES = 2000
_Floats = NDArray[np.float64]


class Cells:
    """The predictions of a stage: loss × cohort × regime × seed.

    Args:
        table: Rows of the study's table.
        cohorts: Labels and folds.
        stage: ``confirm`` reads the outer folds, the others the inner ones.

    Attributes:
        keys: (loss, setting) of the table, sorted.
        conditions: (cohort, regime) in the table's order.
        seeds: Cohort → its seeds, sorted.
    """

    def __init__(self, table: pd.DataFrame, cohorts: Mapping[str, StudyCohort], stage: str) -> None:
        self.keys = sorted({(str(a), str(b)) for a, b in table[["loss", "setting"]].to_numpy()})
        pairs = table[["cohort", "regime"]].drop_duplicates().to_numpy()
        self.conditions: list[tuple[str, str]] = [(str(a), str(b)) for a, b in pairs]
        self.seeds = {
            str(name): tuple(sorted(int(seed) for seed in of.unique()))
            for name, of in table.groupby("cohort")["seed"]
        }
        self.table = table
        self.patients = {
            name: sorted({row.case_id for row in data.cohort.rows}) for name, data in cohorts.items()
        }
        # Patient and confusion cell (truth · C + prediction) of each tested slide.
        self._tested: dict[tuple[str, str, str, str, int], list[NDArray[np.int64]]] = {}
        place = {name: {case: i for i, case in enumerate(of)} for name, of in self.patients.items()}
        for row in cast("Iterable[Any]", table.itertuples(index=False)):
            data = cohorts[str(row.cohort)]
            splits = data.outer if stage == "confirm" else data.inner
            slide_ids = splits.folds[row.fold].test
            rows, index = data.cohort.by_slide, data.cohort.class_index
            predicted = predicted_classes(str(row.predicted), len(slide_ids), len(index))
            patient = np.array([place[str(row.cohort)][rows[s].case_id] for s in slide_ids])
            cell = np.array([index[rows[s].label] * len(index) for s in slide_ids]) + predicted
            key = (str(row.loss), str(row.setting), str(row.cohort), str(row.regime), row.seed)
            self._tested.setdefault(key, []).append(np.stack([patient, cell]))
        self._classes = {name: len(data.cohort.classes) for name, data in cohorts.items()}

    def sums(
        self, loss: str, setting: str, cohort: str, regime: str, seed: int, weights: _Floats | None = None
    ) -> _Floats:
        """Confusion counts of one seed, all folds pooled, (C²,).

        Args:
            loss: Its name, as for the others that follow.
            setting: Its setting.
            cohort: The cohort.
            regime: The regime.
            seed: The seed.
            weights: How often each patient counts, (patients,); default once.

        Raises:
            InputError: The seed was not run in this cell.
        """
        found = self._tested.get((loss, setting, cohort, regime, seed))
        if found is None:
            raise InputError(
                f"The study lacks {loss} / {setting} on {cohort}, {regime}, seed {seed}; go on with it."
            )
        patient, cell = np.concatenate(found, axis=1)
        length = self._classes[cohort] ** 2
        return np.bincount(cell, None if weights is None else weights[patient], minlength=length).astype(
            float
        )

    def macro_f1(self, loss: str, setting: str, cohort: str, regime: str) -> float:
        """Pooled out-of-fold macro-F1, mean over the seeds that were run."""
        found = [
            _macro_f1(self.sums(*key)[None])[0]
            for key in self._tested
            if key[:4] == (loss, setting, cohort, regime)
        ]
        return float(np.mean(found))


def compare_with_rivals(
    cells: Cells, generator: np.random.Generator, headline: str = "ncmi", replicates: int = _REPLICATES
) -> dict[str, Any]:
    """The comparison that the protocol names.

    The strongest rival is the loss with the highest mean over all cells; ``ABLATIONS`` and ``REFERENCES``
    are none. A replicate draws the patients of each cohort and the seeds, with replacement and the same for
    all losses and regimes; the difference in each cell and its mean over cells come from the same replicate.

    Args:
        cells: Predictions, one setting a loss.
        generator: Source of the draws.
        headline: The loss that is compared with the others.
        replicates: How many.

    Raises:
        InputError: The headline is missing, a loss has several settings, or runs are missing.
    """
    setting = dict(cells.keys)
    if len(setting) != len(cells.keys) or headline not in setting:
        raise InputError(f"The comparison needs {headline!r} and one setting a loss.")
    point = {loss: _values(cells, loss, setting[loss], {}, cells.seeds) for loss in setting}
    means = {loss: float(np.mean(list(of.values()))) for loss, of in point.items()}
    others = sorted((loss for loss in setting if loss != headline), key=lambda loss: -means[loss])
    no_rivals = {*ABLATIONS, *(setting.loss for setting in REFERENCES)}
    rivals = [loss for loss in others if loss not in no_rivals]
    drawn: dict[str, list[dict[tuple[str, str], float]]] = {loss: [] for loss in setting}
    for _ in range(replicates):
        weights = {
            name: np.bincount(generator.integers(0, len(of), len(of)), minlength=len(of)).astype(float)
            for name, of in cells.patients.items()
        }
        # Cohorts with the same seeds share a draw.
        draws = {of: generator.choice(of, size=len(of)).tolist() for of in sorted(set(cells.seeds.values()))}
        seeds = {name: draws[of] for name, of in cells.seeds.items()}
        for loss in setting:
            drawn[loss].append(_values(cells, loss, setting[loss], weights, seeds))
    return {
        "headline": headline,
        "strongest_rival": rivals[0] if rivals else None,
        "seeds": cells.seeds,
        "replicates": replicates,
        "mean_over_cells": {loss: means[loss] for loss in sorted(means, key=lambda loss: -means[loss])},
        "differences": {
            rival: _difference(cells, headline, rival, setting, point, drawn) for rival in others
        },
    }


def _values(
    cells: Cells, loss: str, setting: str, weights: Mapping[str, _Floats], seeds: Mapping[str, Sequence[int]]
) -> dict[tuple[str, str], float]:
    found = {}
    for cohort, regime in cells.conditions:
        by_seed = {}
        for seed in set(seeds[cohort]):
            sums = cells.sums(loss, setting, cohort, regime, seed, weights.get(cohort))
            by_seed[seed] = float(_macro_f1(sums[None])[0])
        found[cohort, regime] = float(np.mean([by_seed[seed] for seed in seeds[cohort]]))
    return found


def _difference(
    cells: Cells,
    headline: str,
    rival: str,
    setting: Mapping[str, str],
    point: Mapping[str, Mapping[tuple[str, str], float]],
    drawn: Mapping[str, list[dict[tuple[str, str], float]]],
) -> dict[str, Any]:
    from scipy.stats import wilcoxon

    by_cell, regimes = {}, sorted({regime for _, regime in cells.conditions})
    replicated = {
        cell: np.array([a[cell] - b[cell] for a, b in zip(drawn[headline], drawn[rival], strict=True)])
        for cell in cells.conditions
    }
    for cell in cells.conditions:
        by_cell["/".join(cell)] = _interval(point[headline][cell] - point[rival][cell], replicated[cell])
    by_regime = {}
    for regime in regimes:
        of = [cell for cell in cells.conditions if cell[1] == regime]
        value = float(np.mean([point[headline][cell] - point[rival][cell] for cell in of]))
        by_regime[regime] = _interval(value, np.mean([replicated[cell] for cell in of], axis=0))
    overall = float(np.mean([point[headline][c] - point[rival][c] for c in cells.conditions]))
    table = cells.table.set_index(["cohort", "regime", "fold", "seed"])
    a = table[(table["loss"] == headline) & (table["setting"] == setting[headline])]["macro_f1"]
    b = table[(table["loss"] == rival) & (table["setting"] == setting[rival])]["macro_f1"]
    runs = (a - b).dropna().to_numpy(dtype=np.float64)
    t, p = corrected_resampled_t_test(runs, 0.25)
    return {
        "mean": _interval(overall, np.mean(list(replicated.values()), axis=0)),
        "by_regime": by_regime,
        "by_cell": by_cell,
        "runs": {
            "wins": int((runs > _TIE).sum()), "ties": int((np.abs(runs) <= _TIE).sum()),
            "losses": int((runs < -_TIE).sum()), "corrected_t": _number(t), "corrected_p": _number(p),
            "wilcoxon_p": _number(float(wilcoxon(runs).pvalue)) if (np.abs(runs) > _TIE).any() else None,
        },
    }  # fmt: skip


def _interval(value: float, replicated: _Floats) -> dict[str, float | None]:
    if len(replicated) == 0:
        return {"value": value, "ci_low": None, "ci_high": None}
    low, high = np.quantile(replicated, [0.025, 0.975])
    return {"value": value, "ci_low": float(low), "ci_high": float(high)}


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _macro_f1(sums: _Floats) -> _Floats:
    c = round(sums.shape[1] ** 0.5)
    return np.asarray(confusion_metrics(sums.reshape(-1, c, c))["macro_f1"], dtype=np.float64)
