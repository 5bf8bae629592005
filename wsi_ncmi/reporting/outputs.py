"""Everything that a reader gets of a run, in one go."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wsi_ncmi.reporting.content import ReportInput
from wsi_ncmi.reporting.exports import write_exports
from wsi_ncmi.reporting.figures import report_figures
from wsi_ncmi.reporting.render import write_report
from wsi_ncmi.reporting.summary import write_summary

__all__ = ["write_outputs"]


def write_outputs(
    data: ReportInput, folder: Path, formats: Sequence[str] = ("png", "svg")
) -> dict[str, Path]:
    """Writes ``report.html``, ``summary.md``, ``tables/*.csv`` and ``figures/*``.

    Args:
        data: What they are made from.
        folder: Run folder; it exists.
        formats: Of the figures outside the page; empty = none.

    Returns:
        ``report``, ``summary``, ``tables`` and, where any were drawn, ``figures``.
    """
    figures = report_figures(
        data.predictions_of(data.headline_name), data.headline, data.curves, list(data.evaluations)
    )
    files = {"report": folder / "report.html", "summary": folder / "summary.md"}
    write_report(data, files["report"], figures)
    write_summary(data, files["summary"])
    return {**files, **write_exports(data, figures, folder, formats)}
