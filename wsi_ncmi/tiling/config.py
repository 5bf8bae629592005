"""The config of the tile grid."""

from dataclasses import InitVar
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from wsi_ncmi.core.config import configclass, contradiction

OBJECTIVE_UM = 10.0
"""µm per pixel times magnification: 40× is 0.25 µm per pixel, 20× is 0.5, the field's usual convention."""


@configclass
class GridConfig:
    """Options of the tile grid.

    Attributes:
        mpp: Target resolution in µm per pixel; it is met exactly, never snapped to a magnification.
        tile_px: Edge of a tile in pixels at ``mpp``.
        overlap_px: Pixels at ``mpp`` that neighbouring tiles share.
        min_tissue: Least share of a tile's area that must be tissue, 0 to 1.
        allow_upsample: Accept slides that are coarser than ``mpp``.
        scaled_decoding: Where the target is at least twice as coarse as the level that is read, let the JPEG
            decoder itself reduce tiles by 2, 4 or 8 (in its frequency domain). It is faster, but the pixels
            are no exact area means any more, so features are told apart by this option.
        magnification: Another way to give ``mpp``: 10 / magnification, whatever objective the slide itself
            claims. It is not kept, and giving both is an error.
    """

    mpp: Annotated[float, Field(gt=0.02, le=100)] = 0.5
    tile_px: Annotated[int, Field(ge=16, le=8192)] = 256
    overlap_px: Annotated[int, Field(ge=0)] = 0
    min_tissue: Annotated[float, Field(ge=0, le=1)] = 0.25
    allow_upsample: bool = False
    scaled_decoding: bool = False
    magnification: InitVar[Annotated[float, Field(ge=0.1, lt=500)] | None] = None

    @model_validator(mode="before")
    @classmethod
    def _one_resolution(cls, given: Any) -> Any:
        named = given if isinstance(given, dict) else getattr(given, "kwargs", None) or {}
        if named.get("magnification") is not None and named.get("mpp") is not None:
            raise contradiction(
                "both give the target resolution; leave one of them out", "mpp", "magnification"
            )
        return given

    def __post_init__(self, magnification: float | None) -> None:
        if magnification is not None:
            object.__setattr__(self, "mpp", OBJECTIVE_UM / magnification)

    @model_validator(mode="after")
    def _overlap_is_less_than_a_tile(self) -> Self:
        if self.overlap_px >= self.tile_px:
            raise contradiction(
                f"the overlap ({self.overlap_px}) must be smaller than the tile ({self.tile_px})",
                "overlap_px", "tile_px",
            )  # fmt: skip
        return self
