"""The config of the tile grid."""

from dataclasses import InitVar
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from wsi_ncmi.core.config import configclass, contradiction

OBJECTIVE_UM = 10.0
"""µm per pixel times magnification: 40× is 0.25 µm per pixel, 20× is 0.5, the field's usual convention."""


@configclass
class GridConfig:
    """Options of the tile grid.

    Attributes:
        mpp: Target resolution in µm per pixel; it is met exactly, never snapped to a magnification. ``auto``
            is the one that the encoder was trained at, and 0.5 for an encoder that states none.
        tile_px: Edge of a tile in pixels at ``mpp``; ``auto`` is the encoder's too, or else 256.
        overlap_px: Pixels at ``mpp`` that neighbouring tiles share.
        min_tissue: Least share of a tile's area that must be tissue, 0 to 1.
        allow_upsample: Accept slides that are coarser than ``mpp``.
        allow_other_grid: Accept another ``mpp`` or ``tile_px`` for an encoder whose card forbids it.
        scaled_decoding: Where the target is at least twice as coarse as the level that is read, let the JPEG
            decoder itself reduce tiles by 2, 4 or 8 (in its frequency domain). It is faster, but the pixels
            are no exact area means any more, so features are told apart by this option.
        magnification: Another way to give ``mpp``: 10 / magnification, whatever objective the slide itself
            claims. It is not kept, and giving both is an error.
    """

    mpp: Annotated[float, Field(gt=0.02, le=100)] | Literal["auto"] = "auto"
    tile_px: Annotated[int, Field(ge=16, le=8192)] | Literal["auto"] = "auto"
    overlap_px: Annotated[int, Field(ge=0)] = 0
    min_tissue: Annotated[float, Field(ge=0, le=1)] = 0.25
    allow_upsample: bool = False
    allow_other_grid: bool = False
    scaled_decoding: bool = False
    magnification: InitVar[Annotated[float, Field(ge=0.1, lt=500)] | None] = None

    @model_validator(mode="before")
    @classmethod
    def _one_resolution(cls, given: Any) -> Any:
        named = given if isinstance(given, dict) else getattr(given, "kwargs", None) or {}
        if named.get("magnification") is not None and named.get("mpp") not in (None, "auto"):
            raise contradiction(
                "both give the target resolution; leave one of them out", "mpp", "magnification"
            )
        return given

    def __post_init__(self, magnification: float | None) -> None:
        if magnification is not None:
            object.__setattr__(self, "mpp", OBJECTIVE_UM / magnification)

    @model_validator(mode="after")
    def _overlap_is_less_than_a_tile(self) -> Self:
        if self.overlap_px >= self.edge_px:
            raise contradiction(
                f"the overlap ({self.overlap_px}) must be smaller than the tile ({self.edge_px})",
                "overlap_px", "tile_px",
            )  # fmt: skip
        return self

    @property
    def target_mpp(self) -> float:
        """``mpp`` as a number, that of an encoder without a resolution of its own where it is ``auto``."""
        return 0.5 if self.mpp == "auto" else self.mpp

    @property
    def edge_px(self) -> int:
        """``tile_px`` as a number, likewise."""
        return 256 if self.tile_px == "auto" else self.tile_px
