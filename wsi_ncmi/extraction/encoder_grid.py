"""The tile grid that an encoder was trained at, and how a job's differs from it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from wsi_ncmi.core.config import contradiction
from wsi_ncmi.encoders.config import split_name
from wsi_ncmi.tiling.config import GridConfig

if TYPE_CHECKING:
    from wsi_ncmi.encoders.presets import Preset

# Magnifications are converted and typed with two or three digits: 0.4992 is 0.5.
_SAME = 0.01


def encoder_grid(grid: GridConfig, encoder: str) -> GridConfig:
    """A grid with numbers in place of ``auto``: the encoder's own, where it states them.

    Args:
        grid: As configured.
        encoder: Full name of the encoder.
    """
    preset = _preset(encoder)
    if preset is None:
        return replace(grid, mpp=grid.target_mpp, tile_px=grid.edge_px)
    return replace(
        grid,
        mpp=preset.mpp[0] if grid.mpp == "auto" else grid.mpp,
        tile_px=preset.tile_px if grid.tile_px == "auto" else grid.tile_px,
    )


def other_grid(grid: GridConfig, encoder: str) -> str:
    """How a grid differs from the one that an encoder was trained at; empty where it doesn't.

    Args:
        grid: As configured, or with numbers.
        encoder: Full name of the encoder.
    """
    preset, grid = _preset(encoder), encoder_grid(grid, encoder)
    if preset is None:
        return ""
    at_home = any(math.isclose(grid.target_mpp, mpp, rel_tol=_SAME) for mpp in preset.mpp)
    if at_home and grid.edge_px == preset.tile_px:
        return ""
    trained = " or ".join(f"{mpp:g}" for mpp in preset.mpp)
    return (
        f"tiles have {grid.edge_px} px at {grid.target_mpp:g} µm per pixel, and {preset.title} was trained "
        f"on {preset.tile_px} px at {trained}"
    )


def check_encoder_grid(grid: GridConfig, encoder: str) -> None:
    """Refuses a grid that the encoder's card forbids, unless the job accepts it.

    Raises:
        PydanticCustomError: It does, or the tiles overlap by as much as the encoder's own are large.
    """
    preset = _preset(encoder)
    if preset is not None and grid.tile_px == "auto" and grid.overlap_px >= preset.tile_px:
        raise contradiction(
            f"the overlap ({grid.overlap_px}) must be smaller than {preset.title}'s tiles "
            f"({preset.tile_px} px)",
            "grid.overlap_px",
        )
    differs = other_grid(grid, encoder)
    if preset is not None and preset.fixed_grid and differs and not grid.allow_other_grid:
        raise contradiction(
            f"{differs}; its card takes no other: leave --mpp and --tile-px out, or pass --allow-other-grid",
            "grid.mpp",
            "grid.tile_px",
        )


def _preset(encoder: str) -> Preset | None:
    family, model = split_name(encoder)
    if family == "lazyslide":
        from wsi_ncmi.encoders.zoo import zoo_models

        model = zoo_models()[model].preset
    if family not in ("preset", "lazyslide") or not model:
        return None
    from wsi_ncmi.encoders.presets import presets

    return presets()[model]
