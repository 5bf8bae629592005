"""The parts of an image set: pixels in memory, or pictures in files that are decoded when they are needed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["ArrayPart", "ImageData", "ImagePart", "PicturePart", "Read"]

Read = Callable[[int], Image.Image]


@dataclass(frozen=True)
class ArrayPart:
    """Images of one size in memory.

    Attributes:
        pixels: uint8 (N, H, W, 3), RGB.
        y: Class indices, int64 (N,).
    """

    pixels: NDArray[np.uint8]
    y: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> ArrayPart:
        """The part of these rows."""
        return ArrayPart(self.pixels[rows], self.y[rows])

    def digest(self) -> str:
        """A hash of labels and pixels (of at most 1,000 images, evenly spread)."""
        rows = np.unique(np.linspace(0, len(self.y) - 1, 1000).astype(np.int64))
        content = hashlib.sha256(self.y.tobytes())
        content.update(str(self.pixels.shape).encode())
        content.update(np.ascontiguousarray(self.pixels[rows]).tobytes())
        return content.hexdigest()[:16]


@dataclass(frozen=True)
class PicturePart:
    """Pictures of any size, each decoded when it is needed.

    Attributes:
        names: What each picture is called in messages; no absolute path.
        y: Class indices, int64 (N,).
        read: Decodes the picture at a position, as RGB; picklable, for the processes that decode.
        rows: Positions in the source, int64 (N,).
    """

    names: Sequence[str]
    y: NDArray[np.int64]
    read: Read
    rows: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> PicturePart:
        """The part of these rows."""
        return PicturePart([self.names[row] for row in rows], self.y[rows], self.read, self.rows[rows])

    def digest(self) -> str:
        """A hash of names and labels."""
        content = hashlib.sha256(self.y.tobytes())
        content.update("\n".join(self.names).encode())
        return content.hexdigest()[:16]


ImagePart = ArrayPart | PicturePart


@dataclass(frozen=True)
class ImageData:
    """A whole set.

    Attributes:
        classes: Class names in the order of the indices.
        train: What is learned from.
        validation: What was held out of the training images, or None.
        test: The set's own test part, or None where it is not to be opened.
    """

    classes: tuple[str, ...]
    train: ImagePart
    validation: ImagePart | None
    test: ImagePart | None
