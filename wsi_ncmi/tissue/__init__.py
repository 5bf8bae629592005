"""Tissue masks, artefacts, their outlines, and annotations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_ncmi._lazy import attach
from wsi_ncmi.tissue.artifact_options import ARTIFACT_KINDS, ArtifactOptions
from wsi_ncmi.tissue.options import TissueOptions

if TYPE_CHECKING:  # the names below are loaded lazily at run time
    from wsi_ncmi.tissue.artifact_map import ArtifactMap as ArtifactMap
    from wsi_ncmi.tissue.blur import tile_blur as tile_blur
    from wsi_ncmi.tissue.examination import Examination as Examination
    from wsi_ncmi.tissue.examination import examine_slide as examine_slide
    from wsi_ncmi.tissue.geojson import Annotation as Annotation
    from wsi_ncmi.tissue.geojson import read_geojson as read_geojson
    from wsi_ncmi.tissue.geojson import write_geojson as write_geojson
    from wsi_ncmi.tissue.mask import TissueMask as TissueMask
    from wsi_ncmi.tissue.polygons import mask_polygons as mask_polygons
    from wsi_ncmi.tissue.segmentation import segment_tissue as segment_tissue

__all__ = [
    "ARTIFACT_KINDS",
    "Annotation",
    "ArtifactMap",
    "ArtifactOptions",
    "Examination",
    "TissueMask",
    "TissueOptions",
    "examine_slide",
    "mask_polygons",
    "read_geojson",
    "segment_tissue",
    "tile_blur",
    "write_geojson",
]

__getattr__, __dir__ = attach(
    __name__,
    {
        "Annotation": "wsi_ncmi.tissue.geojson",
        "ArtifactMap": "wsi_ncmi.tissue.artifact_map",
        "Examination": "wsi_ncmi.tissue.examination",
        "TissueMask": "wsi_ncmi.tissue.mask",
        "examine_slide": "wsi_ncmi.tissue.examination",
        "mask_polygons": "wsi_ncmi.tissue.polygons",
        "read_geojson": "wsi_ncmi.tissue.geojson",
        "segment_tissue": "wsi_ncmi.tissue.segmentation",
        "tile_blur": "wsi_ncmi.tissue.blur",
        "write_geojson": "wsi_ncmi.tissue.geojson",
    },
)
