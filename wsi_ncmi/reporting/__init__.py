"""The report: one HTML file that opens from disk, and a short Markdown summary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_ncmi._lazy import attach

if TYPE_CHECKING:  # the names below are loaded lazily at run time
    from wsi_ncmi.reporting.content import ReportInput as ReportInput
    from wsi_ncmi.reporting.exports import write_table as write_table
    from wsi_ncmi.reporting.flow import FlowStep as FlowStep
    from wsi_ncmi.reporting.flow import cohort_flow as cohort_flow
    from wsi_ncmi.reporting.outputs import write_outputs as write_outputs
    from wsi_ncmi.reporting.pictures import SlidePicture as SlidePicture
    from wsi_ncmi.reporting.pictures import TileAttention as TileAttention
    from wsi_ncmi.reporting.pictures import slide_picture as slide_picture
    from wsi_ncmi.reporting.render import render_report as render_report
    from wsi_ncmi.reporting.render import write_report as write_report
    from wsi_ncmi.reporting.slides import best_and_worst as best_and_worst
    from wsi_ncmi.reporting.summary import render_summary as render_summary
    from wsi_ncmi.reporting.summary import write_summary as write_summary

__all__ = [
    "FlowStep",
    "ReportInput",
    "SlidePicture",
    "TileAttention",
    "best_and_worst",
    "cohort_flow",
    "render_report",
    "render_summary",
    "slide_picture",
    "write_outputs",
    "write_report",
    "write_summary",
    "write_table",
]

__getattr__, __dir__ = attach(
    __name__,
    {
        "FlowStep": "wsi_ncmi.reporting.flow",
        "ReportInput": "wsi_ncmi.reporting.content",
        "SlidePicture": "wsi_ncmi.reporting.pictures",
        "TileAttention": "wsi_ncmi.reporting.pictures",
        "best_and_worst": "wsi_ncmi.reporting.slides",
        "cohort_flow": "wsi_ncmi.reporting.flow",
        "render_report": "wsi_ncmi.reporting.render",
        "render_summary": "wsi_ncmi.reporting.summary",
        "slide_picture": "wsi_ncmi.reporting.pictures",
        "write_outputs": "wsi_ncmi.reporting.outputs",
        "write_table": "wsi_ncmi.reporting.exports",
        "write_report": "wsi_ncmi.reporting.render",
        "write_summary": "wsi_ncmi.reporting.summary",
    },
)
