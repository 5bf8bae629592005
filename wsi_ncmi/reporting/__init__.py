"""The report: one HTML file that opens from disk, and a short Markdown summary."""

from __future__ import annotations

from wsi_ncmi._lazy import attach

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
