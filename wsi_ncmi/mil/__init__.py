"""Multiple-instance aggregators behind one interface (:class:`~wsi_ncmi.mil.base.Aggregator`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_ncmi._lazy import attach
from wsi_ncmi.mil.options import ModelOptions
from wsi_ncmi.mil.registry import ModelInfo, build_model, list_models

if TYPE_CHECKING:  # the names below are loaded lazily at run time
    from wsi_ncmi.mil.abmil import ABMIL as ABMIL
    from wsi_ncmi.mil.abmil import GatedABMIL as GatedABMIL
    from wsi_ncmi.mil.bags import BagBatch as BagBatch
    from wsi_ncmi.mil.base import Aggregator as Aggregator
    from wsi_ncmi.mil.base import AggregatorOutput as AggregatorOutput
    from wsi_ncmi.mil.pooling import MaxPool as MaxPool
    from wsi_ncmi.mil.pooling import MeanPool as MeanPool

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
