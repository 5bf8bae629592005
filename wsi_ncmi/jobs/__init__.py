"""Whole jobs and their configuration; a verb of the command line and its script call the same function."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_ncmi._lazy import attach

if TYPE_CHECKING:  # the names below are loaded lazily at run time
    from wsi_ncmi.jobs.config import JobConfig as JobConfig
    from wsi_ncmi.jobs.config_file import load_config as load_config
    from wsi_ncmi.jobs.demo import run_demo as run_demo
    from wsi_ncmi.jobs.evaluation import evaluate as evaluate
    from wsi_ncmi.jobs.extraction import ExtractionRequest as ExtractionRequest
    from wsi_ncmi.jobs.extraction import extract as extract
    from wsi_ncmi.jobs.prediction import PredictionRequest as PredictionRequest
    from wsi_ncmi.jobs.prediction import predict as predict
    from wsi_ncmi.jobs.result import JobResult as JobResult
    from wsi_ncmi.jobs.subtyping import run_job as run_job
    from wsi_ncmi.jobs.training import TrainingRequest as TrainingRequest
    from wsi_ncmi.jobs.training import train as train

_EXPORTS = {
    "ExtractionRequest": "wsi_ncmi.jobs.extraction",
    "JobConfig": "wsi_ncmi.jobs.config",
    "JobResult": "wsi_ncmi.jobs.result",
    "PredictionRequest": "wsi_ncmi.jobs.prediction",
    "TrainingRequest": "wsi_ncmi.jobs.training",
    "evaluate": "wsi_ncmi.jobs.evaluation",
    "extract": "wsi_ncmi.jobs.extraction",
    "load_config": "wsi_ncmi.jobs.config_file",
    "predict": "wsi_ncmi.jobs.prediction",
    "run_demo": "wsi_ncmi.jobs.demo",
    "run_job": "wsi_ncmi.jobs.subtyping",
    "train": "wsi_ncmi.jobs.training",
}

__all__ = sorted(_EXPORTS)

__getattr__, __dir__ = attach(__name__, _EXPORTS)
