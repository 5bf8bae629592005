"""Calibration, and coverage against risk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.metrics import Evaluation, reliability_bins
from wsi_ncmi.metrics.resampling import draw_multiplicities
from wsi_ncmi.reporting.figures.figure import Figure, axis, band, line
from wsi_ncmi.reporting.formatting import count, number, percent

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["calibration_figure", "selective_figure", "weighted_risk"]

_BINS = 10


def calibration_figure(predictions: pd.DataFrame, evaluation: Evaluation) -> Figure:
    """Reliability diagram of one loss: accuracy against confidence in ten bins, all seeds together.

    Args:
        predictions: Its rows.
        evaluation: Its evaluation.

    Returns:
        The figure, with its bins as a table.
    """
    columns = [f"p_{name}" for name in evaluation.classes]
    index = {name: i for i, name in enumerate(evaluation.classes)}
    truth = np.asarray([index[name] for name in predictions["label"]], dtype=np.int64)
    probabilities = predictions[columns].to_numpy(dtype=np.float64)
    confidence, accuracy, counts = reliability_bins(truth, probabilities, _BINS)
    used = np.flatnonzero(counts > 0)
    share = counts / counts.sum()
    ece = evaluation.metrics.get("ece")
    error = f" Calibration error {number(ece.value)}." if ece is not None else ""
    over = float((share[used] * (confidence[used] - accuracy[used])).sum())
    tendency = "overconfident" if over > 0.02 else "underconfident" if over < -0.02 else "about right"
    confident = float(probabilities.max(axis=1).mean())
    right = float((accuracy * counts)[used].sum() / counts.sum())
    mean = f"mean confidence {percent(confident)}, accuracy {percent(right)}"
    points = {
        "type": "scatter",
        "mode": "markers+lines",
        "name": "observed",
        "x": [round(float(confidence[k]), 4) for k in used],
        "y": [round(float(accuracy[k]), 4) for k in used],
        "text": [count(counts[k], "prediction") for k in used],
        # Area, not diameter, follows the number of predictions.
        "marker": {"size": [round(7 + 22 * float(np.sqrt(share[k])), 1) for k in used], "opacity": 0.85},
        "line": {"width": 1.5},
        "showlegend": False,
        "meta": {"colour": 0},
    }
    perfect = {
        "type": "scatter",
        "mode": "lines",
        "x": [0, 1],
        "y": [0, 1],
        "line": {"width": 1, "dash": "dot"},
        "hoverinfo": "skip",
        "showlegend": False,
        "meta": {"faint": True, "colour": 0},
    }
    bars = {
        "type": "bar",
        "x": [round((k + 0.5) / _BINS, 3) for k in range(_BINS)],
        "y": [round(float(value), 4) for value in share],
        "width": 0.9 / _BINS,
        "xaxis": "x",
        "yaxis": "y2",
        "showlegend": False,
        "meta": {"colour": 0},
    }
    lowest = 1 / len(evaluation.classes)
    highest = max(1.05 * float(share.max()), 0.05)
    return Figure(
        "calibration",
        "Calibration",
        f"Accuracy against confidence (probability of the predicted class) in {_BINS} bins, test predictions "
        "of all seeds; a larger dot stands for more predictions, the bars below show their share. On the "
        "dotted line confidence is right; below it the model is overconfident, above it underconfident. "
        f"With {len(evaluation.classes)} classes no confidence is under {lowest:.2f}.{error}",
        f"Reliability diagram: {mean}; the model is {tendency}.{error}",
        [perfect, points, bars],
        {
            "xaxis": axis("Confidence", -0.02, 1.02, anchor="y2"),  # drawn below the bars, which share it
            "yaxis": axis("Accuracy", -0.04, 1.06, domain=[0.3, 1.0]),
            "yaxis2": axis("Share", 0, highest, domain=[0.0, 0.2], nticks=3, tickformat=".0%"),
        },
        ("Confidence", "Mean confidence", "Accuracy", "Predictions"),
        [
            (
                f"{k / _BINS:.1f}–{(k + 1) / _BINS:.1f}",
                number(confidence[k], 2),
                number(accuracy[k], 2),
                f"{counts[k]:,.0f}",
            )
            for k in used
        ],
    )


_Floats = NDArray[np.float64]
GRID = np.linspace(0.05, 1.0, 96)
_RESAMPLES = 200


def weighted_risk(confidence: _Floats, wrong: NDArray[np.bool_], weights: _Floats) -> _Floats:
    """Error rate among the most confident slides, at fixed coverages.

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
        coverages = GRID * kept[-1]
        found[r] = np.interp(coverages, np.append(0.0, kept), np.append(0.0, missed)) / coverages
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
        "Share of wrong slides (risk) among those that the model decides, most confident first (coverage; "
        f"the rest goes to a person); band: 95 % of {_RESAMPLES} resamples of patients. A useful confidence "
        f"falls to the left.{mean}",
        f"Coverage–risk curve: {told}.{mean}",
        [band(GRID, low, high, 0), line("risk", GRID, curves[0], 0, showlegend=False)],
        {
            "xaxis": axis("Coverage (share of slides decided)", 0.0, 1.02, tickformat=".0%"),
            "yaxis": axis("Risk (share wrong)", 0.0, max(1.08 * highest, 0.02), tickformat=".0%"),
        },
    )
