"""A slide in the browser: local page, Deep Zoom tiles, overlays; nothing leaves the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_ncmi._lazy import attach

if TYPE_CHECKING:  # the names below are loaded lazily at run time
    from wsi_ncmi.reporting.viewer.content import Shape as Shape
    from wsi_ncmi.reporting.viewer.content import ViewerContent as ViewerContent
    from wsi_ncmi.reporting.viewer.deepzoom import DeepZoom as DeepZoom
    from wsi_ncmi.reporting.viewer.server import ViewerServer as ViewerServer

_EXPORTS = {
    "DeepZoom": "wsi_ncmi.reporting.viewer.deepzoom",
    "Shape": "wsi_ncmi.reporting.viewer.content",
    "ViewerContent": "wsi_ncmi.reporting.viewer.content",
    "ViewerServer": "wsi_ncmi.reporting.viewer.server",
}

__all__ = sorted(_EXPORTS)

__getattr__, __dir__ = attach(__name__, _EXPORTS)
