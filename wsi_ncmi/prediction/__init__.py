"""From trained models and new slides to predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_ncmi._lazy import attach

if TYPE_CHECKING:  # the names below are loaded lazily at run time
    from wsi_ncmi.prediction.attention import write_attention_geojson as write_attention_geojson
    from wsi_ncmi.prediction.ensemble import Ensemble as Ensemble
    from wsi_ncmi.prediction.ensemble import SlidePrediction as SlidePrediction
    from wsi_ncmi.prediction.ensemble import check_features as check_features
    from wsi_ncmi.prediction.ensemble import load_ensemble as load_ensemble
    from wsi_ncmi.prediction.page import write_prediction_page as write_prediction_page
    from wsi_ncmi.prediction.table import predict_bags as predict_bags

_EXPORTS = {
    "Ensemble": "wsi_ncmi.prediction.ensemble",
    "SlidePrediction": "wsi_ncmi.prediction.ensemble",
    "check_features": "wsi_ncmi.prediction.ensemble",
    "load_ensemble": "wsi_ncmi.prediction.ensemble",
    "predict_bags": "wsi_ncmi.prediction.table",
    "write_attention_geojson": "wsi_ncmi.prediction.attention",
    "write_prediction_page": "wsi_ncmi.prediction.page",
}

__all__ = sorted(_EXPORTS)

__getattr__, __dir__ = attach(__name__, _EXPORTS)
