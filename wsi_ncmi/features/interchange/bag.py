"""Features of one slide between two formats: tiles, metadata, rounding to float16."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import SlideError
from wsi_ncmi.features.hdf5_io import is_finite
from wsi_ncmi.features.schema import FARTHEST


class ExternalFileError(SlideError):
    """A slide's features can't be read, or can't be expressed in the requested format."""


def check_coords(coords: NDArray[Any], path: Path) -> None:
    """Checks that coordinates (N, 2) of another tool, in pixels or µm, can be places in a slide.

    Raises:
        ExternalFileError: One is not finite, negative, or beyond the edge of any slide.
    """
    if not len(coords):
        return
    if not np.isfinite(coords).all():
        raise ExternalFileError(f"{path}: 'coords' holds numbers that are not finite.")
    if coords.min() < 0 or coords.max() >= FARTHEST:
        where = (coords.min(axis=0) if coords.min() < 0 else coords.max(axis=0)).tolist()
        raise ExternalFileError(f"{path}: a tile lies at {where}, outside of the slide.")


@dataclass(frozen=True)
class TileMetadata:
    """Metadata of the tiles of a slide, as far as a format holds it; None or empty = it doesn't.

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

    Raises:
        ExternalFileError: A number is negative, not finite, or larger than any slide.
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

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            numbers = value if isinstance(value, tuple) else (value,)
            if any(isinstance(n, int | float) and not 0 <= n < FARTHEST for n in numbers):
                raise ExternalFileError(f"The {name} of its tiles is {value}, which no slide has.")

    @property
    def edge_um(self) -> float | None:
        """Edge of a tile in µm, given or following from its pixels; None where neither is known."""
        if self.tile_um is not None:
            return self.tile_um
        return self.tile_px * self.mpp_target if self.tile_px and self.mpp_target else None

    @property
    def unknown(self) -> tuple[str, ...]:
        """Names of the fields about tiles that no file held."""
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
        metadata: Metadata of the tiles.
        coords: int64 (N, 2), level-0 pixel (x, y) of the top-left corners; None where they aren't known.
        coords_um: float64 (N, 2), the same in µm, for formats that know nothing else.
    """

    slide_id: str
    features: NDArray[Any]
    metadata: TileMetadata = TileMetadata()
    coords: NDArray[np.int64] | None = None
    coords_um: NDArray[np.float64] | None = None

    def at_resolution(self, mpp_x: float, mpp_y: float) -> TileBag:
        """The same bag of a slide of so many µm per level-0 pixel; what follows from that is filled in."""
        metadata, coords = replace(self.metadata, mpp_x=mpp_x, mpp_y=mpp_y), self.coords
        if coords is None and self.coords_um is not None:
            coords = np.rint(self.coords_um / (mpp_x, mpp_y)).astype(np.int64)
        edge_um = metadata.edge_um
        if edge_um is not None and metadata.tile_width is None:
            metadata = replace(metadata, tile_width=edge_um / mpp_x, tile_height=edge_um / mpp_y)
        if metadata.mpp_target is None and metadata.tile_px and metadata.tile_width:
            metadata = replace(metadata, mpp_target=metadata.tile_width * mpp_x / metadata.tile_px)
        return replace(self, metadata=metadata, coords=coords)


def grid_step(coords: NDArray[Any]) -> float | None:
    """The smallest distance between two columns or two rows of tiles; None where there is but one of each."""
    steps = [np.diff(np.unique(coords[:, axis])) for axis in (0, 1)]
    smallest = [float(step.min()) for step in steps if len(step)]
    return min(smallest) if smallest else None


_PART = 1 << 16
WORST_ERROR = 1e-3
"""Root of the mean squared error over that of the values: numbers within float16's range stay below 3e-4."""


def to_half(features: NDArray[Any], path: Path) -> tuple[NDArray[np.float16], float]:
    """Rounds features to float16.

    Args:
        features: Floating point (N, D).
        path: Their file, for the message.

    Returns:
        float16 (N, D), and the relative error of rounding: 0 where every number was a float16 already.

    Raises:
        ExternalFileError: A number is not finite, is beyond float16's range, or the numbers are so small that
            float16 loses more than a thousandth of them.
    """
    half_already = features.dtype == np.float16
    if not (is_finite(features) if half_already else np.isfinite(features).all()):
        raise ExternalFileError(f"{path} holds NaN or infinity; make the features of this slide again.")
    if half_already:
        return features.astype(np.float16, copy=False), 0.0
    largest = max(float(features.max(initial=0)), -float(features.min(initial=0)))
    half = np.empty(features.shape, np.float16)
    squares = errors = 0.0
    # In parts that stay in the processor's cache, and never a second copy of the whole in memory.
    rows = max(1, _PART // max(features.shape[1], 1))
    for start in range(0, len(features), rows):
        part = features[start : start + rows]
        with np.errstate(over="ignore"):
            half[start : start + rows] = part
        if largest:
            # Relative to the largest number: squares of tiny or huge ones would leave the range of floats.
            flat = part.ravel() / largest
            with np.errstate(invalid="ignore"):  # beyond float16's range; refused below
                off = half[start : start + rows].ravel() / part.dtype.type(largest) - flat
                squares += float(np.dot(flat, flat))
                errors += float(np.dot(off, off))
    if not is_finite(half):
        raise ExternalFileError(
            f"{path} holds a number of {largest:.4g}, beyond the 65504 of float16; scale the features (such "
            "as by layer normalisation) before the conversion."
        )
    error = float(np.sqrt(errors / squares)) if squares else 0.0
    if error > WORST_ERROR:
        raise ExternalFileError(
            f"{path} holds numbers so small (at most {largest:.1e}) that float16 would lose {error:.0%} of "
            "them; scale the features before the conversion."
        )
    return half, error
