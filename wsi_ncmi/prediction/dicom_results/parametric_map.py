"""Tile values as a parametric map on the pixels of a level of the slide's own pyramid.

Source: DICOM PS3.3, A.75 and C.8.32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import SlideError
from wsi_ncmi.prediction.dicom_results.annotations import layer_code
from wsi_ncmi.prediction.dicom_results.source import DicomSource, pixel_spacing
from wsi_ncmi.reporting.heatmaps import TileValues, rasterise

if TYPE_CHECKING:
    from highdicom.pm import ParametricMap
    from pydicom import Dataset

_MIN_TILE_PX = 2.0
_MAX_PX = 1 << 24  # 64 MiB a layer
NO_TILE = -1.0
"""Value of pixels without a tile."""


def tile_map(
    source: DicomSource, tiles: TileValues, layers: list[str], dimension_uid: str, **common: Any
) -> ParametricMap:
    """Attention and evidence as pictures that a viewer lays over the slide.

    Args:
        source: The slide's own objects.
        tiles: Tiles and values.
        layers: Names of the layers to show.
        dimension_uid: UID of the organisation of its frames.
        **common: What all results share (series, equipment, …), as highdicom takes it.

    Raises:
        SlideError: The pyramid has no level that is fine enough and not too large.
    """
    from highdicom import VOILUTTransformation
    from highdicom.pm import ParametricMap, RealWorldValueMapping
    from pydicom.sr.codedict import codes

    level = _level(source, tiles)
    rows, columns = int(level.TotalPixelMatrixRows), int(level.TotalPixelMatrixColumns)
    downsample = np.divide(pixel_spacing(level), pixel_spacing(source.first))
    window = (0.0, 0.0, columns * float(downsample[0]), rows * float(downsample[1]))
    pixels: list[NDArray[np.float32]] = []
    mappings: list[list[RealWorldValueMapping]] = []
    for name in layers:
        layer = tiles.layer(name)
        mean, covered = rasterise(tiles.boxes, layer.values, window, (rows, columns))
        pixels.append(np.where(covered >= 0.5, mean, np.float32(NO_TILE)))
        mappings.append(
            [
                RealWorldValueMapping(
                    lut_label=f"layer {len(mappings) + 1}",
                    lut_explanation=layer_code(layer).meaning,
                    unit=codes.UCUM.NoUnits,
                    value_range=(0.0, 1.0),
                    slope=1.0,
                    intercept=0.0,
                    quantity_definition=layer_code(layer),
                )
            ]
        )
    top = max(float(tiles.layer(name).values.max()) for name in layers)
    result = ParametricMap(
        source_images=[level],
        pixel_array=np.stack(pixels, axis=-1)[None],
        tile_pixel_array=True,
        tile_size=(min(512, rows), min(512, columns)),
        contains_recognizable_visual_features=False,
        real_world_value_mappings=mappings,
        voi_lut_transformations=[
            # The plain linear function begins at a width of 1.
            VOILUTTransformation(top / 2, max(top, 1e-6), voi_lut_function="LINEAR_EXACT")
        ],
        content_label="TILE_VALUES",
        **common,
    )
    result.FloatPixelPaddingValue = result.FloatPixelPaddingRangeLimit = NO_TILE
    for item in result.DimensionOrganizationSequence:
        item.DimensionOrganizationUID = dimension_uid
    for item in result.DimensionIndexSequence:
        item.DimensionOrganizationUID = dimension_uid
    return result


def _level(source: DicomSource, tiles: TileValues) -> Dataset:
    """The smallest level on which a tile is at least two pixels wide and high."""
    width, height = tiles.tile_level0
    across, down = pixel_spacing(source.first)
    for image in reversed(source.levels):
        x, y = pixel_spacing(image)
        if min(width * across / x, height * down / y) >= _MIN_TILE_PX:
            break
    size = int(image.TotalPixelMatrixColumns), int(image.TotalPixelMatrixRows)
    if size[0] * size[1] > _MAX_PX:
        raise SlideError(
            f"no parametric map: the slide's smallest level with {_MIN_TILE_PX:g} pixels a tile has "
            f"{size[0]} × {size[1]} px, more than {_MAX_PX}; leave --dicom-map out"
        )
    return image
