"""What is known of an image's stain, and what a method makes of two of them."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import SlideError

__all__ = ["ColourMap", "StainFitError", "StainModel"]

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
