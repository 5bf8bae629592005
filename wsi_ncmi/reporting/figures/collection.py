"""All figures of a report, in the order and groups of its sections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from wsi_ncmi.metrics import Evaluation
from wsi_ncmi.reporting.figures.confidence import calibration_figure, selective_figure
from wsi_ncmi.reporting.figures.figure import Figure
from wsi_ncmi.reporting.figures.ranking import ranking_figures
from wsi_ncmi.reporting.figures.training_curves import information_figure, learning_figures

if TYPE_CHECKING:
    import pandas as pd

FigureGroups = dict[str, list[Figure]]


def report_figures(
    predictions: pd.DataFrame,
    evaluation: Evaluation,
    curves: pd.DataFrame | None,
    evaluations: Mapping[str, Evaluation],
) -> FigureGroups:
    """Makes the figures.

    Args:
        predictions: Rows of the headline loss.
        evaluation: Its evaluation.
        curves: Learning curves of all losses, or None.
        evaluations: Those of all losses, the headline first.

    Returns:
        ``ranking`` (ROC, PR), ``calibration``, ``selective`` (coverage–risk) and ``learning`` (curves, then
        concentration against separation); a group may be empty.
    """
    names = list(evaluations)
    tested = {
        name: each.metrics["ncmi"].value for name, each in evaluations.items() if "ncmi" in each.metrics
    }
    information = information_figure(curves, names, tested)
    return {
        "ranking": ranking_figures(predictions, evaluation),
        "calibration": [calibration_figure(predictions, evaluation)],
        "selective": [selective_figure(predictions, evaluation)],
        "learning": [*learning_figures(curves, names), *([information] if information else [])],
    }
