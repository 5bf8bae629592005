"""Multiple-instance aggregators behind one interface (:class:`~wsi_ncmi.mil.base.Aggregator`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_ncmi._lazy import attach
from wsi_ncmi.mil.options import ModelOptions
from wsi_ncmi.mil.registry import ModelInfo, build_model, list_models, model_info

if TYPE_CHECKING:  # the names below are loaded lazily at run time
    from wsi_ncmi.mil.abmil import ABMIL as ABMIL
    from wsi_ncmi.mil.abmil import GatedABMIL as GatedABMIL
    from wsi_ncmi.mil.acmil import ACMIL as ACMIL
    from wsi_ncmi.mil.aem import AEM as AEM
    from wsi_ncmi.mil.asmil import ASMIL as ASMIL
    from wsi_ncmi.mil.bags import BagBatch as BagBatch
    from wsi_ncmi.mil.base import Aggregator as Aggregator
    from wsi_ncmi.mil.base import AggregatorOutput as AggregatorOutput
    from wsi_ncmi.mil.clam import CLAMMB as CLAMMB
    from wsi_ncmi.mil.clam import CLAMSB as CLAMSB
    from wsi_ncmi.mil.cost import ModelCost as ModelCost
    from wsi_ncmi.mil.cost import measure_model as measure_model
    from wsi_ncmi.mil.dsmil import DSMIL as DSMIL
    from wsi_ncmi.mil.dtfd import DTFD as DTFD
    from wsi_ncmi.mil.foreign.importing import ForeignModel as ForeignModel
    from wsi_ncmi.mil.foreign.importing import import_checkpoint as import_checkpoint
    from wsi_ncmi.mil.pooling import MaxPool as MaxPool
    from wsi_ncmi.mil.pooling import MeanPool as MeanPool
    from wsi_ncmi.mil.transmil import TransMIL as TransMIL
    from wsi_ncmi.mil.vit import VisionTransformer as VisionTransformer

__all__ = [
    "ModelOptions",
    "ModelInfo",
    "build_model",
    "list_models",
    "model_info",
    "BagBatch",
    "Aggregator",
    "AggregatorOutput",
    "GatedABMIL",
    "ABMIL",
    "MeanPool",
    "MaxPool",
    "CLAMSB",
    "CLAMMB",
    "DSMIL",
    "TransMIL",
    "DTFD",
    "ACMIL",
    "AEM",
    "ASMIL",
    "VisionTransformer",
    "ModelCost",
    "measure_model",
    "ForeignModel",
    "import_checkpoint",
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
        "CLAMSB": "wsi_ncmi.mil.clam",
        "CLAMMB": "wsi_ncmi.mil.clam",
        "DSMIL": "wsi_ncmi.mil.dsmil",
        "TransMIL": "wsi_ncmi.mil.transmil",
        "DTFD": "wsi_ncmi.mil.dtfd",
        "ACMIL": "wsi_ncmi.mil.acmil",
        "AEM": "wsi_ncmi.mil.aem",
        "ASMIL": "wsi_ncmi.mil.asmil",
        "VisionTransformer": "wsi_ncmi.mil.vit",
        "ModelCost": "wsi_ncmi.mil.cost",
        "measure_model": "wsi_ncmi.mil.cost",
        "ForeignModel": "wsi_ncmi.mil.foreign.importing",
        "import_checkpoint": "wsi_ncmi.mil.foreign.importing",
    },
)
