"""The report: one HTML file that opens from disk, and a short Markdown summary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_ncmi._lazy import attach

if TYPE_CHECKING:  # the names below are loaded lazily at run time
    from wsi_ncmi.reporting.content import ReportInput as ReportInput
    from wsi_ncmi.reporting.flow import FlowStep as FlowStep
    from wsi_ncmi.reporting.flow import cohort_flow as cohort_flow
    from wsi_ncmi.reporting.render import render_report as render_report
    from wsi_ncmi.reporting.render import write_report as write_report
    from wsi_ncmi.reporting.summary import render_summary as render_summary
    from wsi_ncmi.reporting.summary import write_summary as write_summary

__all__ = [
    "FlowStep",
    "ReportInput",
    "cohort_flow",
    "render_report",
    "render_summary",
    "write_report",
    "write_summary",
]

__getattr__, __dir__ = attach(
    __name__,
    {
        "FlowStep": "wsi_ncmi.reporting.flow",
        "ReportInput": "wsi_ncmi.reporting.content",
        "cohort_flow": "wsi_ncmi.reporting.flow",
        "render_report": "wsi_ncmi.reporting.render",
        "render_summary": "wsi_ncmi.reporting.summary",
        "write_report": "wsi_ncmi.reporting.render",
        "write_summary": "wsi_ncmi.reporting.summary",
    },
)
