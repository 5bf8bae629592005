"""The networks of the presets, built without any download, and the names of their tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_ncmi._lazy import attach

if TYPE_CHECKING:  # the names below are loaded lazily at run time
    from wsi_ncmi.encoders.architectures.build import build_architecture as build_architecture
    from wsi_ncmi.encoders.architectures.names import to_our_names as to_our_names
    from wsi_ncmi.encoders.architectures.pooling import TileNetwork as TileNetwork

_EXPORTS = {
    "TileNetwork": "wsi_ncmi.encoders.architectures.pooling",
    "build_architecture": "wsi_ncmi.encoders.architectures.build",
    "to_our_names": "wsi_ncmi.encoders.architectures.names",
}

__all__ = sorted(_EXPORTS)

__getattr__, __dir__ = attach(__name__, _EXPORTS)
