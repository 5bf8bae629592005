"""Tiles as microscopy bulk simple annotations: a rectangle a tile, its values as measurements.

Source: DICOM PS3.3, A.87 (the object) and C.37.1.2 (its coordinates). Coordinates are pixels of level 0's
total pixel matrix with sub-pixel resolution: 0, 0 is the top left corner of the top left pixel, as it is of
tile coordinates here, and columns, rows the bottom right corner of the last (PS3.3, C.18.6). They are 32-bit
numbers, exact to 1/64 pixel on slides of 262,144 pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from wsi_ncmi.prediction.dicom_results.codes import class_code, plain_text, private_code

if TYPE_CHECKING:
    from highdicom.ann import MicroscopyBulkSimpleAnnotations
    from highdicom.sr import CodedConcept

    from wsi_ncmi.prediction.bundle import ModelBundle
    from wsi_ncmi.prediction.dicom_results.source import DicomSource
    from wsi_ncmi.reporting.heatmaps import TileLayer, TileValues


def tile_annotations(
    source: DicomSource, tiles: TileValues, bundle: ModelBundle, group_uid: str, **common: Any
) -> MicroscopyBulkSimpleAnnotations:
    """The tiles of a slide with attention and evidence.

    Args:
        source: The slide's own objects.
        tiles: Tiles and values.
        bundle: The model.
        group_uid: UID of the group of annotations.
        **common: What all results share (series, equipment, …), as highdicom takes it.
    """
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.ann import AnnotationGroup, Measurements, MicroscopyBulkSimpleAnnotations
    from pydicom.sr.codedict import codes

    left, top, right, bottom = tiles.boxes.astype(np.float32).T
    corners = np.stack((left, top, right, top, right, bottom, left, bottom), axis=1).reshape(-1, 4, 2)
    group = AnnotationGroup(
        number=1,
        uid=group_uid,
        label="Tiles",
        description=plain_text(f"Tiles with attention and evidence of the model {bundle.name}", 1024),
        annotated_property_category=codes.SCT.SpatialAndRelationalConcept,
        annotated_property_type=codes.DCM.SelectedRegion,
        graphic_type="RECTANGLE",
        graphic_data=list(corners),
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            name=plain_text(bundle.name),
            family=codes.DCM.ArtificialIntelligence,
            version=common["software_versions"],
            source=common["manufacturer"],
            parameters={"model_digest": bundle.digest},
        ),
        measurements=[
            Measurements(layer_code(layer), layer.values, codes.UCUM.NoUnits) for layer in tiles.layers
        ],
    )
    return MicroscopyBulkSimpleAnnotations(
        source_images=[source.first],
        annotation_coordinate_type="2D",
        pixel_origin_interpretation="VOLUME",
        annotation_groups=[group],
        content_label="TILES",
        **common,
    )


def layer_code(layer: TileLayer) -> CodedConcept:
    """The code of a layer's values."""
    if layer.kind == "attention":
        return private_code("attention")
    return class_code("e", layer.name.removeprefix("evidence "))
