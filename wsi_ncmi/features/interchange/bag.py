"""One slide's features between two formats, with what is known about them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import SlideError

__all__ = ["ForeignFileError", "TileBag", "TileFacts", "grid_step"]


class ForeignFileError(SlideError):
    """A slide's features can't be read, or can't be said in the format that was asked for."""


@dataclass(frozen=True)
class TileFacts:
    """What a format tells about the tiles of a slide; None or empty = it doesn't.

    Attributes:
        encoder: Name of the encoder.
        mpp_x: µm per level-0 pixel along x.
        mpp_y: The same along y.
        mpp_target: µm per pixel of the tiles.
        tile_px: Edge of a tile at that resolution, px.
        tile_um: Edge of a tile in µm.
        overlap_px: Pixels that neighbours share at that resolution.
        tile_width: Width of a tile in level-0 pixels.
        tile_height: Its height.
        level0_size: Width and height of the slide, px.
        label: Class of the slide.
        case_id: Patient.
    """

    encoder: str = ""
    mpp_x: float | None = None
    mpp_y: float | None = None
    mpp_target: float | None = None
    tile_px: int | None = None
    tile_um: float | None = None
    overlap_px: int | None = None
    tile_width: float | None = None
    tile_height: float | None = None
    level0_size: tuple[int, int] | None = None
    label: str = ""
    case_id: str = ""

    @property
    def edge_um(self) -> float | None:
        """Edge of a tile in µm, told or following from its pixels; None where neither is known."""
        if self.tile_um is not None:
            return self.tile_um
        return self.tile_px * self.mpp_target if self.tile_px and self.mpp_target else None

    @property
    def unknown(self) -> tuple[str, ...]:
        """Names of the facts about tiles that nobody told."""
        names = (
            "encoder",
            "mpp_x",
            "mpp_y",
            "mpp_target",
            "tile_px",
            "overlap_px",
            "tile_width",
            "level0_size",
        )
        return tuple(name for name in names if getattr(self, name) in (None, ""))


@dataclass(frozen=True)
class TileBag:
    """The features of one slide.

    Attributes:
        slide_id: Id of the slide.
        features: Floating point (N, D), as the file has them.
        facts: What is known of the tiles.
        coords: int64 (N, 2), level-0 pixel (x, y) of the top-left corners; None where they aren't known.
        coords_um: float64 (N, 2), the same in µm, for formats that know nothing else.
    """

    slide_id: str
    features: NDArray[Any]
    facts: TileFacts = TileFacts()
    coords: NDArray[np.int64] | None = None
    coords_um: NDArray[np.float64] | None = None

    def at_resolution(self, mpp_x: float, mpp_y: float) -> TileBag:
        """The same bag of a slide of so many µm per level-0 pixel; what follows from that is filled in."""
        facts, coords = replace(self.facts, mpp_x=mpp_x, mpp_y=mpp_y), self.coords
        if coords is None and self.coords_um is not None:
            coords = np.rint(self.coords_um / (mpp_x, mpp_y)).astype(np.int64)
        edge_um = facts.edge_um
        if edge_um is not None and facts.tile_width is None:
            facts = replace(facts, tile_width=edge_um / mpp_x, tile_height=edge_um / mpp_y)
        if facts.mpp_target is None and facts.tile_px and facts.tile_width:
            facts = replace(facts, mpp_target=facts.tile_width * mpp_x / facts.tile_px)
        return replace(self, facts=facts, coords=coords)


def grid_step(coords: NDArray[Any]) -> float | None:
    """The smallest distance between two columns or two rows of tiles; None where there is but one of each."""
    steps = [np.diff(np.unique(coords[:, axis])) for axis in (0, 1)]
    smallest = [float(step.min()) for step in steps if len(step)]
    return min(smallest) if smallest else None
