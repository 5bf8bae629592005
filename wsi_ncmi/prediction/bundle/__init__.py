"""The model bundle: everything that new slides need, in one folder or zip, without any code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_ncmi._lazy import attach

if TYPE_CHECKING:  # the names below are loaded lazily at run time
    from wsi_ncmi.prediction.bundle.loading import is_bundle as is_bundle
    from wsi_ncmi.prediction.bundle.loading import load_bundle as load_bundle
    from wsi_ncmi.prediction.bundle.loading import load_model as load_model
    from wsi_ncmi.prediction.bundle.model import ModelBundle as ModelBundle
    from wsi_ncmi.prediction.bundle.writing import write_bundle as write_bundle

_EXPORTS = {
    "ModelBundle": "wsi_ncmi.prediction.bundle.model",
    "is_bundle": "wsi_ncmi.prediction.bundle.loading",
    "load_bundle": "wsi_ncmi.prediction.bundle.loading",
    "load_model": "wsi_ncmi.prediction.bundle.loading",
    "write_bundle": "wsi_ncmi.prediction.bundle.writing",
}

__all__ = sorted(_EXPORTS)

__getattr__, __dir__ = attach(__name__, _EXPORTS)
