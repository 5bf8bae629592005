"""Multiple-instance aggregators behind one interface (:class:`~wsi_ncmi.mil.base.Aggregator`)."""

from __future__ import annotations

from wsi_ncmi._lazy import attach
from wsi_ncmi.mil.options import ModelOptions
from wsi_ncmi.mil.registry import ModelInfo, build_model, list_models

__all__ = [
    "ModelOptions",
    "ModelInfo",
    "build_model",
    "list_models",
    "BagBatch",
    "Aggregator",
    "AggregatorOutput",
    "GatedABMIL",
    "ABMIL",
    "MeanPool",
    "MaxPool",
]

__getattr__, __dir__ = attach(
    __name__,
    {
        "BagBatch": "wsi_ncmi.mil.bags",
        "Aggregator": "wsi_ncmi.mil.base",
        "AggregatorOutput": "wsi_ncmi.mil.base",
        "GatedABMIL": "wsi_ncmi.mil.abmil",
        "ABMIL": "wsi_ncmi.mil.abmil",
        "MeanPool": "wsi_ncmi.mil.pooling",
        "MaxPool": "wsi_ncmi.mil.pooling",
    },
)
