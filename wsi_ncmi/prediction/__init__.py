"""From trained models and new slides to predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_ncmi._lazy import attach

if TYPE_CHECKING:  # the names below are loaded lazily at run time
    from wsi_ncmi.prediction.bundle.loading import is_bundle as is_bundle
    from wsi_ncmi.prediction.bundle.loading import load_bundle as load_bundle
    from wsi_ncmi.prediction.bundle.loading import load_model as load_model
    from wsi_ncmi.prediction.bundle.model import ModelBundle as ModelBundle
    from wsi_ncmi.prediction.bundle.writing import write_bundle as write_bundle
    from wsi_ncmi.prediction.calibration import Calibration as Calibration
    from wsi_ncmi.prediction.ensemble import Ensemble as Ensemble
    from wsi_ncmi.prediction.ensemble import SlidePrediction as SlidePrediction
    from wsi_ncmi.prediction.ensemble import check_features as check_features
    from wsi_ncmi.prediction.ensemble import load_ensemble as load_ensemble

_EXPORTS = {
    "Calibration": "wsi_ncmi.prediction.calibration",
    "Ensemble": "wsi_ncmi.prediction.ensemble",
    "ModelBundle": "wsi_ncmi.prediction.bundle.model",
    "SlidePrediction": "wsi_ncmi.prediction.ensemble",
    "check_features": "wsi_ncmi.prediction.ensemble",
    "is_bundle": "wsi_ncmi.prediction.bundle.loading",
    "load_bundle": "wsi_ncmi.prediction.bundle.loading",
    "load_ensemble": "wsi_ncmi.prediction.ensemble",
    "load_model": "wsi_ncmi.prediction.bundle.loading",
    "write_bundle": "wsi_ncmi.prediction.bundle.writing",
}

__all__ = sorted(_EXPORTS)

__getattr__, __dir__ = attach(__name__, _EXPORTS)
