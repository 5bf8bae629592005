"""Tissue masks, their outlines, and GeoJSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_ncmi._lazy import attach
from wsi_ncmi.tissue.options import TissueOptions

if TYPE_CHECKING:  # the names below are loaded lazily at run time
    from wsi_ncmi.tissue.geojson import Annotation as Annotation
    from wsi_ncmi.tissue.geojson import read_geojson as read_geojson
    from wsi_ncmi.tissue.geojson import write_geojson as write_geojson
    from wsi_ncmi.tissue.mask import TissueMask as TissueMask
    from wsi_ncmi.tissue.polygons import mask_polygons as mask_polygons
    from wsi_ncmi.tissue.segmentation import segment_tissue as segment_tissue

__all__ = [
    "Annotation",
    "TissueMask",
    "TissueOptions",
    "mask_polygons",
    "read_geojson",
    "segment_tissue",
    "write_geojson",
]

__getattr__, __dir__ = attach(
    __name__,
    {
        "Annotation": "wsi_ncmi.tissue.geojson",
        "TissueMask": "wsi_ncmi.tissue.mask",
        "mask_polygons": "wsi_ncmi.tissue.polygons",
        "read_geojson": "wsi_ncmi.tissue.geojson",
        "segment_tissue": "wsi_ncmi.tissue.segmentation",
        "write_geojson": "wsi_ncmi.tissue.geojson",
    },
)
