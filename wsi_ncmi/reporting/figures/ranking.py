"""ROC and precision–recall curves, one class against the rest, with bands from drawing patients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.metrics import Evaluation
from wsi_ncmi.metrics.resampling import draw_multiplicities
from wsi_ncmi.reporting.figures.figure import Figure, axis, band, line
from wsi_ncmi.reporting.formatting import interval, number

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["curves_on_grid", "ranking_figures"]

_Floats = NDArray[np.float64]
GRID = np.linspace(0.0, 1.0, 101)
_RESAMPLES = 200
_MAX_BANDS = 4  # more bands than this cover each other
_MAX_LINES = 8  # more lines than this can't be told apart: the mean, and the others in grey


def curves_on_grid(positive: NDArray[np.bool_], scores: _Floats, weights: _Floats) -> tuple[_Floats, _Floats]:
    """ROC and precision–recall curves of weighted observations, read off at fixed points.

    Args:
        positive: (N,) which observations are positive.
        scores: (N,) higher means more positive.
        weights: (R, N) multiplicities of R resamples.

    Returns:
        ``(tpr, precision)``, each (R, 101): true-positive rate at false-positive rates 0 … 1 (linear between
        thresholds), and precision at the first threshold that reaches a recall of 0 … 1. NaN rows where
        positives or negatives are missing.
    """
    order = np.argsort(-scores, kind="stable")
    # Only the last observation of a group of equal scores is a threshold.
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    sorted_weights = weights[:, order]
    hits = np.cumsum(sorted_weights * positive[order], axis=1)[:, ends]
    alarms = np.cumsum(sorted_weights * ~positive[order], axis=1)[:, ends]
    rates = np.full((len(weights), GRID.size), np.nan)
    precisions = np.full((len(weights), GRID.size), np.nan)
    for r, (found, false) in enumerate(zip(hits, alarms, strict=True)):
        if found[-1] <= 0 or false[-1] <= 0:
            continue
        recall = found / found[-1]
        rates[r] = np.interp(GRID, np.append(0.0, false / false[-1]), np.append(0.0, recall))
        first = np.searchsorted(recall, GRID - 1e-12)
        # A threshold at which no observation of this resample lies yet says nothing: the first that has one.
        first = np.maximum(first, int(np.argmax(found + false > 0)))
        precisions[r] = found[first] / (found[first] + false[first])
    return rates, precisions


def ranking_figures(predictions: pd.DataFrame, evaluation: Evaluation) -> list[Figure]:
    """ROC and PR figure of one loss: pooled out-of-fold predictions, mean over seeds.

    Args:
        predictions: Its rows.
        evaluation: Its evaluation (classes, areas and their intervals).

    Returns:
        Two figures; none where no class has both positives and negatives.
    """
    found = _all_curves(predictions, evaluation)
    if not found:
        return []
    total = {name: evaluation.support.get(name, 0) for name in found}
    share = {name: total[name] / max(evaluation.n_slides, 1) for name in found}
    banded = f"; bands: 95 % of {_RESAMPLES} resamples of patients" if _with_bands(evaluation) else ""
    seeds = f", mean over {len(evaluation.seeds)} seeds" if len(evaluation.seeds) > 1 else ""
    source = f"Pooled test predictions{seeds}{banded}."
    if len(found) > _MAX_LINES:
        source += " Thin: single classes; thick: their mean."
    left_out = [name for name in evaluation.classes if name not in found]
    if left_out:
        source += f" Not drawn, because all or none of the slides belong to it: {', '.join(left_out)}."
    roc = Figure(
        "roc",
        "ROC curves",
        f"One class against the rest. {source} The diagonal is chance.",
        _areas("Area under the ROC curve", evaluation, "auroc", list(found)),
        [_diagonal(), *_draw({name: curves[0] for name, curves in found.items()}, evaluation, "auroc", GRID)],
        _layout("False-positive rate (1 − specificity)", "True-positive rate (sensitivity)"),
    )
    chance = "Chance is the share of the class"
    if len(found) <= _MAX_LINES:
        chance += ": " + ", ".join(f"{name} {share[name]:.2f}" for name in found)
    pr = Figure(
        "pr",
        "Precision–recall curves",
        f"One class against the rest. {source} {chance}.",
        _areas("Average precision", evaluation, "auprc", list(found)),
        _draw({name: curves[1] for name, curves in found.items()}, evaluation, "auprc", GRID),
        _layout("Recall (sensitivity)", "Precision (positive predictive value)"),
    )
    return [roc, pr]


def _with_bands(evaluation: Evaluation) -> bool:
    return len(evaluation.classes) <= _MAX_BANDS


def _all_curves(predictions: pd.DataFrame, evaluation: Evaluation) -> dict[str, tuple[_Floats, _Floats]]:
    """Class → (R + 1, 101) ROC and PR values, mean over seeds; row 0 is the data as they are."""
    patients = sorted(set(predictions["case_id"]))
    position = {case: i for i, case in enumerate(patients)}
    drawn = [np.ones((1, len(patients)))]
    if _with_bands(evaluation):
        drawn += list(draw_multiplicities(len(patients), _RESAMPLES, seed=0))
    weights = np.concatenate(drawn)
    seeds = [part for _, part in predictions.groupby("seed", sort=True)]
    found = {}
    for name in evaluation.classes:
        pairs = [
            curves_on_grid(
                (part["label"] == name).to_numpy(dtype=bool),
                part[f"p_{name}"].to_numpy(dtype=np.float64),
                weights[:, [position[case] for case in part["case_id"]]],
            )
            for part in seeds
        ]
        roc, pr = (np.mean([pair[i] for pair in pairs], axis=0) for i in (0, 1))
        if np.isfinite(roc[0]).all():
            found[name] = (roc, pr)
    return found


def _draw(
    curves: dict[str, _Floats], evaluation: Evaluation, metric: str, x: _Floats
) -> list[dict[str, Any]]:
    many = len(curves) > _MAX_LINES
    bands, lines = [], []
    for i, (name, values) in enumerate(curves.items()):
        area = evaluation.per_class[name].get(metric)
        label = f"{name} ({number(area.value)})" if area is not None else name
        if many:
            lines.append(
                line(label, x, values[0], 0, meta={"faint": True}, showlegend=False, line={"width": 1})
            )
            continue
        if len(values) > 1:
            low, high = np.nanquantile(values[1:], [0.025, 0.975], axis=0)
            bands.append(band(x, low, high, i, legendgroup=str(i)))
        lines.append(line(label, x, values[0], i, legendgroup=str(i)))
    if many:
        mean = np.mean([values[0] for values in curves.values()], axis=0)
        lines.append(line(f"mean of {len(curves)} classes", x, mean, 0, line={"width": 3}))
    return [*bands, *lines]


def _diagonal() -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [0, 1],
        "y": [0, 1],
        "line": {"width": 1, "dash": "dot"},
        "hoverinfo": "skip",
        "showlegend": False,
        "meta": {"faint": True, "colour": 0},
    }


def _layout(x: str, y: str) -> dict[str, Any]:
    return {"xaxis": axis(x, -0.01, 1.01), "yaxis": axis(y, -0.02, 1.03), "legend": {"below": True}}


def _areas(what: str, evaluation: Evaluation, metric: str, classes: list[str]) -> str:
    parts = []
    for name in classes:
        estimate = evaluation.per_class[name].get(metric)
        if estimate is not None:
            bounds = interval(estimate)
            parts.append(f"{name} {number(estimate.value)}" + (f" ({bounds})" if bounds else ""))
    return f"{what} by class, with 95 % intervals: {'; '.join(parts)}."
