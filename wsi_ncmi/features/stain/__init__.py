"""Stain normalisation: the colours of a slide brought to those of a target (Macenko, Reinhard)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_ncmi._lazy import attach

if TYPE_CHECKING:  # the names below are loaded lazily at run time
    from wsi_ncmi.features.stain.fitting import fit_stain as fit_stain
    from wsi_ncmi.features.stain.model import StainFitError as StainFitError
    from wsi_ncmi.features.stain.model import StainModel as StainModel
    from wsi_ncmi.features.stain.normaliser import StainNormaliser as StainNormaliser
    from wsi_ncmi.features.stain.options import StainOptions as StainOptions
    from wsi_ncmi.features.stain.target import StainTarget as StainTarget
    from wsi_ncmi.features.stain.target import sample_positions as sample_positions
    from wsi_ncmi.features.stain.target import stain_target as stain_target

_EXPORTS = {
    "StainFitError": "wsi_ncmi.features.stain.model",
    "StainModel": "wsi_ncmi.features.stain.model",
    "StainNormaliser": "wsi_ncmi.features.stain.normaliser",
    "StainOptions": "wsi_ncmi.features.stain.options",
    "StainTarget": "wsi_ncmi.features.stain.target",
    "fit_stain": "wsi_ncmi.features.stain.fitting",
    "sample_positions": "wsi_ncmi.features.stain.target",
    "stain_target": "wsi_ncmi.features.stain.target",
}

__all__ = sorted(_EXPORTS)

__getattr__, __dir__ = attach(__name__, _EXPORTS)
