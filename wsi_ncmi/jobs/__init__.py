"""Whole jobs and their configuration; a verb of the command line and its script call the same function."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_ncmi._lazy import attach

if TYPE_CHECKING:  # the names below are loaded lazily at run time
    from wsi_ncmi.jobs.config import JobConfig as JobConfig
    from wsi_ncmi.jobs.config_file import load_config as load_config
    from wsi_ncmi.jobs.demo import run_demo as run_demo
    from wsi_ncmi.jobs.evaluation import evaluate as evaluate
    from wsi_ncmi.jobs.exporting import ExportRequest as ExportRequest
    from wsi_ncmi.jobs.exporting import export as export
    from wsi_ncmi.jobs.extraction import extract as extract
    from wsi_ncmi.jobs.extraction_request import ExtractionRequest as ExtractionRequest
    from wsi_ncmi.jobs.heatmaps import HeatmapRequest as HeatmapRequest
    from wsi_ncmi.jobs.heatmaps import make_heatmaps as make_heatmaps
    from wsi_ncmi.jobs.prediction import PredictionRequest as PredictionRequest
    from wsi_ncmi.jobs.prediction import predict as predict
    from wsi_ncmi.jobs.result import JobResult as JobResult
    from wsi_ncmi.jobs.slide_answers import Explanations as Explanations
    from wsi_ncmi.jobs.subtyping import run_job as run_job
    from wsi_ncmi.jobs.training import TrainingRequest as TrainingRequest
    from wsi_ncmi.jobs.training import train as train
    from wsi_ncmi.jobs.viewing import ViewRequest as ViewRequest
    from wsi_ncmi.jobs.viewing import open_view as open_view
    from wsi_ncmi.jobs.viewing import view as view
    from wsi_ncmi.jobs.watching import WatchOptions as WatchOptions
    from wsi_ncmi.jobs.watching import watch as watch

_EXPORTS = {
    "Explanations": "wsi_ncmi.jobs.slide_answers",
    "ExportRequest": "wsi_ncmi.jobs.exporting",
    "ExtractionRequest": "wsi_ncmi.jobs.extraction_request",
    "HeatmapRequest": "wsi_ncmi.jobs.heatmaps",
    "JobConfig": "wsi_ncmi.jobs.config",
    "JobResult": "wsi_ncmi.jobs.result",
    "PredictionRequest": "wsi_ncmi.jobs.prediction",
    "TrainingRequest": "wsi_ncmi.jobs.training",
    "ViewRequest": "wsi_ncmi.jobs.viewing",
    "WatchOptions": "wsi_ncmi.jobs.watching",
    "evaluate": "wsi_ncmi.jobs.evaluation",
    "export": "wsi_ncmi.jobs.exporting",
    "extract": "wsi_ncmi.jobs.extraction",
    "load_config": "wsi_ncmi.jobs.config_file",
    "make_heatmaps": "wsi_ncmi.jobs.heatmaps",
    "open_view": "wsi_ncmi.jobs.viewing",
    "predict": "wsi_ncmi.jobs.prediction",
    "run_demo": "wsi_ncmi.jobs.demo",
    "run_job": "wsi_ncmi.jobs.subtyping",
    "train": "wsi_ncmi.jobs.training",
    "view": "wsi_ncmi.jobs.viewing",
    "watch": "wsi_ncmi.jobs.watching",
}

__all__ = sorted(_EXPORTS)

__getattr__, __dir__ = attach(__name__, _EXPORTS)
