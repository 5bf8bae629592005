"""Fitting MIL models to labelled bags: one run (``fit``), or folds × seeds × losses (``run_experiment``)."""

from __future__ import annotations

from wsi_ncmi._lazy import attach
from wsi_ncmi.training.options import TrainingOptions

__all__ = [
    "BagCache",
    "ExperimentResult",
    "FitResult",
    "RunFailure",
    "TrainedModel",
    "TrainingOptions",
    "fit",
    "load_trained",
    "run_experiment",
]

__getattr__, __dir__ = attach(
    __name__,
    {
        "BagCache": "wsi_ncmi.training.batches",
        "ExperimentResult": "wsi_ncmi.training.experiment",
        "FitResult": "wsi_ncmi.training.fitting",
        "RunFailure": "wsi_ncmi.training.runs",
        "TrainedModel": "wsi_ncmi.training.checkpoint",
        "fit": "wsi_ncmi.training.fitting",
        "load_trained": "wsi_ncmi.training.checkpoint",
        "run_experiment": "wsi_ncmi.training.experiment",
    },
)
