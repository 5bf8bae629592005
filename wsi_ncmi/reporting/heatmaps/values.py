"""Tile values of a slide, their scales and their colours.

``percentile`` ranks the tiles of one slide: it always uses the whole bar, however strong the
numbers are. ``absolute`` means the same on every slide: attention as a multiple of even attention (1/N), on a
logarithmic bar from 1/16 to 16; evidence and shares as they are, from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import InputError

if TYPE_CHECKING:
    from wsi_ncmi.features import FeatureFile

SCALES = ("percentile", "absolute")

_MAX_ATTENTION = 16.0  # multiple of even attention at the end of the absolute scale
# Anchors of viridis (van der Walt & Smith, CC0).
_VIRIDIS = (
    "440154", "482475", "414487", "355f8d", "2a788e", "21918c", "22a884", "44bf70", "7ad151",
    "bddf26", "fde725",
)  # fmt: skip


@dataclass(frozen=True, eq=False)  # arrays have no one truth value to compare by
class TileLayer:
    """One number a tile.

    Attributes:
        name: For example ``attention`` or ``evidence tumour``.
        values: float32 (N,).
        kind: ``attention``: weights that sum to 1; ``evidence``: class probabilities of single tiles;
            ``share``: anything else between 0 and 1.
    """

    name: str
    values: NDArray[np.float32]
    kind: Literal["attention", "evidence", "share"] = "share"


@dataclass(frozen=True, eq=False)
class TileValues:
    """The tiles of a slide and their values.

    Attributes:
        slide_id: The slide.
        coords: int64 (N, 2), level-0 corners as the feature file has them.
        tile_level0: Width and height of a tile in level-0 pixels, exact.
        size_level0: Width and height of the slide in level-0 pixels.
        layers: Values of the tiles.
        mpp: µm per level-0 pixel along x and y; None where unknown.

    Raises:
        InputError: The numbers of a layer are not those of the tiles.
    """

    slide_id: str
    coords: NDArray[np.int64]
    tile_level0: tuple[float, float]
    size_level0: tuple[int, int]
    layers: tuple[TileLayer, ...] = ()
    mpp: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        for layer in self.layers:
            if layer.values.shape != (len(self.coords),):
                raise InputError(
                    f"{self.slide_id} has {len(self.coords)} tiles but {layer.values.shape} values of "
                    f"{layer.name}; extract the slide again."
                )
        if min(self.tile_level0) <= 0 or min(self.size_level0) <= 0:
            raise InputError(
                f"The size of the tiles of {self.slide_id} isn't known ({self.tile_level0} on a slide of "
                f"{self.size_level0} px); extract the slide with this program, or give features that say it."
            )

    def __len__(self) -> int:
        return len(self.coords)

    def layer(self, name: str) -> TileLayer:
        """The layer of that name.

        Raises:
            InputError: There is none.
        """
        for layer in self.layers:
            if layer.name == name:
                return layer
        names = ", ".join(layer.name for layer in self.layers)
        raise InputError(f"There is no tile value {name!r} for {self.slide_id}; choose one of {names}.")

    @property
    def boxes(self) -> NDArray[np.float64]:
        """float64 (N, 4): left, top, right, bottom in level-0 pixels."""
        corner = self.coords.astype(np.float64)
        return np.concatenate((corner, corner + np.asarray(self.tile_level0)), axis=1)


def model_layers(
    attention: NDArray[np.floating[Any]], evidence: NDArray[np.floating[Any]], classes: Sequence[str]
) -> tuple[TileLayer, ...]:
    """The layers of a model's output.

    Args:
        attention: (N,), summing to 1.
        evidence: (N, C), class probabilities of each tile alone.
        classes: Their names.
    """
    return (
        TileLayer("attention", np.asarray(attention, np.float32), "attention"),
        *(
            TileLayer(f"evidence {name}", np.ascontiguousarray(evidence[:, i], np.float32), "evidence")
            for i, name in enumerate(classes)
        ),
    )


def tile_values(
    file: FeatureFile, attention: Any = None, evidence: Any = None, classes: tuple[str, ...] = ()
) -> TileValues:
    """The tiles of a feature file with the numbers of a model (none where attention is None)."""
    about = file.coords_attrs
    mpp = float(file.attrs["mpp_level0_x"]), float(file.attrs["mpp_level0_y"])
    return TileValues(
        slide_id=file.slide_id,
        coords=file.coords,
        tile_level0=(float(file.attrs["tile_size_level0_x"]), float(file.attrs["tile_size_level0_y"])),
        size_level0=(int(about["level0_width"]), int(about["level0_height"])),
        layers=() if attention is None else model_layers(attention, evidence, classes),
        mpp=mpp if min(mpp) > 0 else None,  # an imported file may not know it
    )


def check_scale(scale: str) -> None:
    """Refuses a scale that isn't one of ``SCALES``.

    Raises:
        InputError: It isn't.
    """
    if scale not in SCALES:
        raise InputError(f"There is no scale {scale!r}; choose percentile or absolute.")


def scaled(layer: TileLayer, scale: str) -> NDArray[np.float32]:
    """Positions on the colour bar, 0 to 1.

    Args:
        layer: The numbers.
        scale: One of ``SCALES``.

    Returns:
        float32 (N,). Percentiles are mid-ranks, so that equal numbers get equal colours: (tiles below + half
        of the equal ones) / N.

    Raises:
        InputError: No such scale.
    """
    check_scale(scale)
    values = layer.values.astype(np.float64)
    if len(values) == 0:
        return np.empty(0, np.float32)
    if scale == "percentile":
        _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        below = np.cumsum(counts) - counts
        ranks: NDArray[np.float64] = (below + counts / 2)[inverse] / len(values)
        return ranks.astype(np.float32)
    if layer.kind == "attention":
        multiple = np.maximum(values * len(values), 1e-12)
        position = 0.5 + np.log(multiple) / (2 * np.log(_MAX_ATTENTION))
        clipped: NDArray[np.float64] = np.clip(position, 0, 1)
        return clipped.astype(np.float32)
    return np.clip(values, 0, 1).astype(np.float32)


def scale_title(layer: TileLayer, scale: str) -> str:
    """Title of the colour bar."""
    check_scale(scale)
    if scale == "percentile":
        return f"{layer.name}: percentile among this slide's tiles"
    if layer.kind == "attention":
        return f"{layer.name}: absolute, multiple of even attention"
    if layer.kind == "evidence":
        return f"{layer.name}: absolute, probability of the tile alone"
    return f"{layer.name}: absolute"


def scale_ticks(layer: TileLayer, scale: str) -> tuple[tuple[float, str], ...]:
    """Positions on the bar and their labels."""
    check_scale(scale)
    if scale == "percentile":
        return ((0.0, "0"), (0.5, "50"), (1.0, "100 %"))
    if layer.kind == "attention":
        return ((0.0, "< 1/16"), (0.25, "1/4"), (0.5, "1"), (0.75, "4"), (1.0, "> 16"))
    return ((0.0, "0"), (0.5, "0.5"), (1.0, "1"))


def _table(anchors: tuple[str, ...]) -> NDArray[np.uint8]:
    points = np.array([[int(text[i : i + 2], 16) for i in (0, 2, 4)] for text in anchors], np.float64)
    where = np.linspace(0, len(points) - 1, 256)
    columns = [np.interp(where, np.arange(len(points)), points[:, channel]) for channel in range(3)]
    return np.rint(np.stack(columns, axis=1)).astype(np.uint8)


COLOUR_TABLE: NDArray[np.uint8] = _table(_VIRIDIS)
"""uint8 (256, 3)."""


def colours_of(positions: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Colours of positions on the bar, 0 to 1: uint8 (…, 3)."""
    colours: NDArray[np.uint8] = COLOUR_TABLE[np.clip(np.rint(positions * 255), 0, 255).astype(np.int64)]
    return colours
