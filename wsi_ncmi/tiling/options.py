"""Options of the tile grid."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from wsi_ncmi.options import options

__all__ = ["GridOptions"]


@options
class GridOptions:
    """How a slide is cut into tiles.

    Attributes:
        mpp: Target resolution in µm per pixel; it is met exactly, never snapped to a magnification.
        tile_px: Edge of a tile in pixels at ``mpp``.
        overlap_px: Pixels at ``mpp`` that neighbouring tiles share.
        min_tissue: Least share of a tile's area that must be tissue, 0 to 1.
        allow_upsample: Accept slides that are coarser than ``mpp``.
    """

    mpp: Annotated[float, Field(gt=0.02, le=100)] = 0.5
    tile_px: Annotated[int, Field(ge=16, le=8192)] = 256
    overlap_px: Annotated[int, Field(ge=0)] = 0
    min_tissue: Annotated[float, Field(ge=0, le=1)] = 0.25
    allow_upsample: bool = False

    @model_validator(mode="after")
    def _overlap_is_less_than_a_tile(self) -> Self:
        if self.overlap_px >= self.tile_px:
            raise ValueError(f"overlap_px ({self.overlap_px}) must be smaller than tile_px ({self.tile_px})")
        return self
