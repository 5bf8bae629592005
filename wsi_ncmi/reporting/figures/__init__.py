"""The report's figures as plain Plotly descriptions; the browser chooses the colours."""

from __future__ import annotations

from wsi_ncmi.reporting.figures.calibration import calibration_figure
from wsi_ncmi.reporting.figures.collection import FigureGroups, report_figures
from wsi_ncmi.reporting.figures.figure import Figure
from wsi_ncmi.reporting.figures.information import information_figure
from wsi_ncmi.reporting.figures.learning import learning_figures
from wsi_ncmi.reporting.figures.ranking import ranking_figures
from wsi_ncmi.reporting.figures.selective import selective_figure

__all__ = [
    "Figure",
    "FigureGroups",
    "calibration_figure",
    "information_figure",
    "learning_figures",
    "ranking_figures",
    "report_figures",
    "selective_figure",
]
