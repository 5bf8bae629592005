"""Coverage against risk: what is left wrong when the least sure slides go to a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.metrics import Evaluation
from wsi_ncmi.metrics.bootstrap import draw_multiplicities
from wsi_ncmi.reporting.figures.figure import Figure, axis, band, line
from wsi_ncmi.reporting.wording import number, percent

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["selective_figure", "weighted_risk"]

_Floats = NDArray[np.float64]
GRID = np.linspace(0.05, 1.0, 96)
_RESAMPLES = 200


def weighted_risk(confidence: _Floats, wrong: NDArray[np.bool_], weights: _Floats) -> _Floats:
    """Error rate among the surest slides, read off at fixed coverages.

    Args:
        confidence: (N,) higher is surer.
        wrong: (N,) whether the prediction is wrong.
        weights: (R, N) multiplicities of R resamples.

    Returns:
        (R, 96) risk at the coverages ``GRID``; of slides of equal confidence the expected share is taken.
    """
    order = np.argsort(-confidence, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(confidence[order])), len(confidence) - 1)
    sorted_weights = weights[:, order]
    taken = np.cumsum(sorted_weights, axis=1)[:, ends]
    errors = np.cumsum(sorted_weights * wrong[order], axis=1)[:, ends]
    found = np.empty((len(weights), GRID.size))
    for r, (kept, missed) in enumerate(zip(taken, errors, strict=True)):
        wanted = GRID * kept[-1]
        found[r] = np.interp(wanted, np.append(0.0, kept), np.append(0.0, missed)) / wanted
    return found


def selective_figure(predictions: pd.DataFrame, evaluation: Evaluation) -> Figure:
    """The coverage–risk curve of one loss with a band from drawing patients.

    Args:
        predictions: Its rows.
        evaluation: Its evaluation.

    Returns:
        The figure.
    """
    patients = sorted(set(predictions["case_id"]))
    position = {case: i for i, case in enumerate(patients)}
    drawn = draw_multiplicities(len(patients), _RESAMPLES, seed=0)
    weights = np.concatenate([np.ones((1, len(patients))), *drawn])
    columns = [f"p_{name}" for name in evaluation.classes]
    curves = np.mean(
        [
            weighted_risk(
                part[columns].to_numpy(dtype=np.float64).max(axis=1),
                (part["label"] != part["prediction"]).to_numpy(dtype=bool),
                weights[:, [position[case] for case in part["case_id"]]],
            )
            for _, part in predictions.groupby("seed", sort=True)
        ],
        axis=0,
    )
    low, high = np.nanquantile(curves[1:], [0.025, 0.975], axis=0)
    points = evaluation.selective.get("points", ())
    told = "; ".join(
        f"{percent(p['coverage'])} of slides: {percent(1 - p['accuracy'])} wrong" for p in points
    )
    area = evaluation.selective.get("aurc")
    mean = f" Mean over all coverages (AURC) {number(area)}." if area is not None else ""
    highest = float(np.nanmax(high))
    return Figure(
        "selective",
        "Abstention",
        "Share of wrong slides (risk) among those that the model decides, the surest first (coverage; the "
        f"rest goes to a person); band: 95 % of {_RESAMPLES} resamples of patients. A useful confidence "
        f"falls to the left.{mean}",
        f"Coverage–risk curve: {told}.{mean}",
        [band(GRID, low, high, 0), line("risk", GRID, curves[0], 0, showlegend=False)],
        {
            "xaxis": axis("Coverage (share of slides decided)", 0.0, 1.02, tickformat=".0%"),
            "yaxis": axis("Risk (share wrong)", 0.0, max(1.08 * highest, 0.02), tickformat=".0%"),
        },
    )
