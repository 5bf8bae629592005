"""What is known of every published tile encoder, as data: nothing here imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_ncmi._lazy import attach

if TYPE_CHECKING:  # the names below are loaded lazily at run time
    from wsi_ncmi.encoders.presets.catalogue import PRESETS as PRESETS
    from wsi_ncmi.encoders.presets.catalogue import find_preset as find_preset
    from wsi_ncmi.encoders.presets.preset import Architecture as Architecture
    from wsi_ncmi.encoders.presets.preset import Hub as Hub
    from wsi_ncmi.encoders.presets.preset import Preset as Preset
    from wsi_ncmi.encoders.presets.preset import Recipe as Recipe

_EXPORTS = {
    "Architecture": "wsi_ncmi.encoders.presets.preset",
    "Hub": "wsi_ncmi.encoders.presets.preset",
    "PRESETS": "wsi_ncmi.encoders.presets.catalogue",
    "Preset": "wsi_ncmi.encoders.presets.preset",
    "Recipe": "wsi_ncmi.encoders.presets.preset",
    "find_preset": "wsi_ncmi.encoders.presets.catalogue",
}

__all__ = sorted(_EXPORTS)

__getattr__, __dir__ = attach(__name__, _EXPORTS)
