"""Tissue masks, artefacts, their outlines, and annotations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_ncmi._lazy import attach
from wsi_ncmi.tissue.annotation_options import AnnotationOptions
from wsi_ncmi.tissue.artifact_options import ARTIFACT_KINDS, ArtifactOptions
from wsi_ncmi.tissue.options import TissueOptions

if TYPE_CHECKING:  # the names below are loaded lazily at run time
    from wsi_ncmi.tissue.annotation import Annotation as Annotation
    from wsi_ncmi.tissue.annotation import Annotations as Annotations
    from wsi_ncmi.tissue.annotations import find_annotations as find_annotations
    from wsi_ncmi.tissue.annotations import read_annotations as read_annotations
    from wsi_ncmi.tissue.applying import apply_annotations as apply_annotations
    from wsi_ncmi.tissue.artifact_map import ArtifactMap as ArtifactMap
    from wsi_ncmi.tissue.blur import tile_blur as tile_blur
    from wsi_ncmi.tissue.examination import Examination as Examination
    from wsi_ncmi.tissue.examination import examine_slide as examine_slide
    from wsi_ncmi.tissue.geojson import read_geojson as read_geojson
    from wsi_ncmi.tissue.geojson import write_annotations as write_annotations
    from wsi_ncmi.tissue.geojson import write_geojson as write_geojson
    from wsi_ncmi.tissue.mask import TissueMask as TissueMask
    from wsi_ncmi.tissue.polygons import mask_polygons as mask_polygons
    from wsi_ncmi.tissue.segmentation import segment_tissue as segment_tissue

__all__ = [
    "ARTIFACT_KINDS",
    "Annotation",
    "AnnotationOptions",
    "Annotations",
    "ArtifactMap",
    "ArtifactOptions",
    "Examination",
    "TissueMask",
    "TissueOptions",
    "apply_annotations",
    "examine_slide",
    "find_annotations",
    "mask_polygons",
    "read_annotations",
    "read_geojson",
    "segment_tissue",
    "tile_blur",
    "write_annotations",
    "write_geojson",
]

__getattr__, __dir__ = attach(
    __name__,
    {
        "Annotation": "wsi_ncmi.tissue.annotation",
        "Annotations": "wsi_ncmi.tissue.annotation",
        "ArtifactMap": "wsi_ncmi.tissue.artifact_map",
        "Examination": "wsi_ncmi.tissue.examination",
        "TissueMask": "wsi_ncmi.tissue.mask",
        "apply_annotations": "wsi_ncmi.tissue.applying",
        "examine_slide": "wsi_ncmi.tissue.examination",
        "find_annotations": "wsi_ncmi.tissue.annotations",
        "mask_polygons": "wsi_ncmi.tissue.polygons",
        "read_annotations": "wsi_ncmi.tissue.annotations",
        "read_geojson": "wsi_ncmi.tissue.geojson",
        "segment_tissue": "wsi_ncmi.tissue.segmentation",
        "tile_blur": "wsi_ncmi.tissue.blur",
        "write_annotations": "wsi_ncmi.tissue.geojson",
        "write_geojson": "wsi_ncmi.tissue.geojson",
    },
)
