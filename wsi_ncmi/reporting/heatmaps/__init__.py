"""Where on a slide a model looks, and what it sees there: pictures, overlays and tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_ncmi._lazy import attach

if TYPE_CHECKING:  # the names below are loaded lazily at run time
    from wsi_ncmi.reporting.heatmaps.gallery import draw_gallery as draw_gallery
    from wsi_ncmi.reporting.heatmaps.geojson import write_tiles_geojson as write_tiles_geojson
    from wsi_ncmi.reporting.heatmaps.overlay import write_overlay as write_overlay
    from wsi_ncmi.reporting.heatmaps.picture import draw_comparison as draw_comparison
    from wsi_ncmi.reporting.heatmaps.picture import draw_heatmap as draw_heatmap
    from wsi_ncmi.reporting.heatmaps.raster import rasterise as rasterise
    from wsi_ncmi.reporting.heatmaps.scales import SCALES as SCALES
    from wsi_ncmi.reporting.heatmaps.values import TileLayer as TileLayer
    from wsi_ncmi.reporting.heatmaps.values import TileValues as TileValues

_EXPORTS = {
    "SCALES": "wsi_ncmi.reporting.heatmaps.scales",
    "TileLayer": "wsi_ncmi.reporting.heatmaps.values",
    "TileValues": "wsi_ncmi.reporting.heatmaps.values",
    "draw_comparison": "wsi_ncmi.reporting.heatmaps.picture",
    "draw_gallery": "wsi_ncmi.reporting.heatmaps.gallery",
    "draw_heatmap": "wsi_ncmi.reporting.heatmaps.picture",
    "rasterise": "wsi_ncmi.reporting.heatmaps.raster",
    "write_overlay": "wsi_ncmi.reporting.heatmaps.overlay",
    "write_tiles_geojson": "wsi_ncmi.reporting.heatmaps.geojson",
}

__all__ = sorted(_EXPORTS)

__getattr__, __dir__ = attach(__name__, _EXPORTS)
