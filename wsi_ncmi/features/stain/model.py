"""Stain of an image, and the normaliser that changes the colours of tiles to another stain."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import SlideError

ColourMap = Callable[
    [NDArray[np.uint8]], tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]
]
"""uint8 (P, 3) in RGB to three new planes float32 (P,), unrounded and not yet cut to 0 … 255."""


class StainFitError(SlideError):
    """The stain of an image can't be measured: too little tissue, one stain only, no contrast."""


@dataclass(frozen=True)
class StainModel(ABC):
    """The stain of one image or slide, as one method measures it; small, picklable, comparable."""

    method: ClassVar[str]

    @classmethod
    @abstractmethod
    def fit(cls, pixels: NDArray[np.uint8]) -> Self:
        """Measures pixels, uint8 (P, 3).

        Raises:
            StainFitError: They don't show what the method needs.
        """

    @classmethod
    @abstractmethod
    def builtin(cls) -> Self:
        """The method's published target."""

    @classmethod
    @abstractmethod
    def constants(cls) -> dict[str, float]:
        """The numbers of the method that change results, for the identity of files."""

    @abstractmethod
    def map_to(self, target: Self) -> ColourMap:
        """The change of colours that gives an image of this stain the target's."""

    @property
    def text(self) -> str:
        """Canonical JSON of the method and the numbers; equal models have equal texts."""
        return json.dumps({"method": self.method, **asdict(self)}, sort_keys=True, separators=(",", ":"))


# Planes of one part stay in the processor's cache.
_PART = 1 << 15


class StainNormaliser:
    """Gives pixels of one stain the colours of another.

    A pixel's new colour depends on its own alone: batches and their order change nothing.

    Args:
        source: Stain of the slide that the pixels come from.
        target: Stain that they are to have.

    Raises:
        ValueError: The two are of different methods.

    Example:
        >>> import numpy as np
        >>> from wsi_ncmi.features.stain.methods import MacenkoModel
        >>> target = MacenkoModel.builtin()
        >>> StainNormaliser(target, target).apply(np.full((1, 1, 1, 3), 239, np.uint8)).ravel()
        array([239, 239, 239], dtype=uint8)
    """

    def __init__(self, source: StainModel, target: StainModel) -> None:
        if type(source) is not type(target):
            raise ValueError(
                f"a stain measured by {source.method} can't be changed to one by {target.method}"
            )
        self.source, self.target = source, target
        self._colours = source.map_to(target)

    def __reduce__(self) -> tuple[type[StainNormaliser], tuple[StainModel, StainModel]]:
        return StainNormaliser, (self.source, self.target)

    @property
    def identity(self) -> str:
        """Canonical JSON of both stains."""
        pair = {"source": json.loads(self.source.text), "target": json.loads(self.target.text)}
        return json.dumps(pair, sort_keys=True, separators=(",", ":"))

    def apply(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Changes colours; computed in float32, rounded to the nearest grey level, cut to 0 … 255.

        Args:
            pixels: uint8 (…, 3) in RGB, such as tiles (n, h, w, 3).

        Returns:
            uint8 of the same shape, a new array.

        Raises:
            ValueError: Another type or no three channels.
        """
        if pixels.dtype != np.uint8 or pixels.ndim < 2 or pixels.shape[-1] != 3:
            raise ValueError(f"pixels must be uint8 (…, 3), not {pixels.dtype} {pixels.shape}")
        flat = pixels.reshape(-1, 3)
        out = np.empty(flat.shape, np.uint8)
        for start in range(0, len(flat), _PART):
            part = slice(start, start + _PART)
            for channel, plane in enumerate(self._colours(flat[part])):
                np.clip(plane, 0, 255, out=plane)
                np.rint(plane, out=plane)
                out[part, channel] = plane
        return out.reshape(pixels.shape)
