"""Changing the colours of tiles from one stain to another."""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.features.stain.model import StainModel

__all__ = ["StainNormaliser"]

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
        >>> from wsi_ncmi.features.stain.macenko import MacenkoModel
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
