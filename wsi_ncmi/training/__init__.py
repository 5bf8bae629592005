"""Fitting MIL models to labelled bags: one run (``fit``), or folds × seeds × losses (``run_experiment``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_ncmi._lazy import attach
from wsi_ncmi.training.options import TrainingOptions

if TYPE_CHECKING:  # the names below are loaded lazily at run time
    from wsi_ncmi.training.batches import BagCache as BagCache
    from wsi_ncmi.training.checkpoint import TrainedModel as TrainedModel
    from wsi_ncmi.training.checkpoint import load_trained as load_trained
    from wsi_ncmi.training.experiment import ExperimentResult as ExperimentResult
    from wsi_ncmi.training.experiment import run_experiment as run_experiment
    from wsi_ncmi.training.fitting import FitResult as FitResult
    from wsi_ncmi.training.fitting import fit as fit
    from wsi_ncmi.training.fitting import fit_in_memory as fit_in_memory
    from wsi_ncmi.training.runs import RunFailure as RunFailure
    from wsi_ncmi.training.step_bags import LabelledSlides as LabelledSlides

__all__ = [
    "BagCache",
    "ExperimentResult",
    "FitResult",
    "LabelledSlides",
    "RunFailure",
    "TrainedModel",
    "TrainingOptions",
    "fit",
    "fit_in_memory",
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
        "LabelledSlides": "wsi_ncmi.training.step_bags",
        "fit": "wsi_ncmi.training.fitting",
        "fit_in_memory": "wsi_ncmi.training.fitting",
        "load_trained": "wsi_ncmi.training.checkpoint",
        "run_experiment": "wsi_ncmi.training.experiment",
    },
)
