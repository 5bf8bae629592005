"""Numbers of a slide's tiles, with the tiles' exact places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import InputError

__all__ = ["TileLayer", "TileValues", "model_layers"]


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
    """The tiles of a slide and what is known of them.

    Attributes:
        slide_id: The slide.
        coords: int64 (N, 2), level-0 corners as the feature file has them.
        tile_level0: Width and height of a tile in level-0 pixels, exact.
        size_level0: Width and height of the slide in level-0 pixels.
        layers: What is known.

    Raises:
        InputError: The numbers of a layer are not those of the tiles.
    """

    slide_id: str
    coords: NDArray[np.int64]
    tile_level0: tuple[float, float]
    size_level0: tuple[int, int]
    layers: tuple[TileLayer, ...] = ()

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
    """The layers of a model's answer.

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
