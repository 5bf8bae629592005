"""One level of a pyramid in memory, made of box means of the level above it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


def tile_jobs(width: int, height: int, tile_px: int) -> Iterator[tuple[int, int]]:
    """Corners (x, y) in px of all tiles of a level, in raster order."""
    for y in range(0, height, tile_px):
        for x in range(0, width, tile_px):
            yield x, y


def encode_tile(tile: NDArray[np.uint8], compression: str, quality: int) -> bytes:
    """Encodes one tile, uint8 (tile_px, tile_px, 3 or 4), as a TIFF reader expects it."""
    import imagecodecs

    if compression == "jpeg":
        encoded = imagecodecs.jpeg8_encode(
            tile,
            level=quality,
            colorspace="RGBA" if tile.shape[2] == 4 else "RGB",
            outcolorspace="YCBCR",
            subsampling=(2, 2),
        )
        return bytes(encoded)
    deflated = imagecodecs.zlib_encode(np.ascontiguousarray(tile[..., :3]).tobytes(), level=6)
    return bytes(deflated)


def _box_mean(pixels: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    from PIL import Image

    pixels = np.ascontiguousarray(pixels)
    if pixels.shape[2] == 3:
        return np.asarray(Image.fromarray(pixels).reduce(factor))
    # As "RGBX" the fourth channel takes part in no alpha arithmetic.
    size = (pixels.shape[1], pixels.shape[0])
    image = Image.frombuffer("RGBX", size, pixels, "raw", "RGBX", 0, 1)
    return np.asarray(image.reduce(factor))[..., :3]


@dataclass
class ReducedLevel:
    """Pixels of one level, and which of its regions have anything but absent tiles.

    Attributes:
        width: Width in px.
        height: Height in px.
        factor: Downsampling against level 0.
        pixels: uint8 (height, width, 3); (0, 0, 3) for level 0, which is never held whole.
        present: bool (rows, columns), True where a level-0 tile was written.
        cell: Edge of such a level-0 tile in px of level 0 (0 while nothing was written).
    """

    width: int
    height: int
    factor: int
    pixels: NDArray[np.uint8]
    present: NDArray[np.bool_]
    cell: int = 0

    @staticmethod
    def blank(width: int, height: int, factor: int, background: tuple[int, int, int]) -> ReducedLevel:
        """A level filled with background; level 0 (factor 1) holds no pixels."""
        shape = (0, 0, 3) if factor == 1 else (height, width, 3)
        return ReducedLevel(
            width, height, factor, np.full(shape, background, dtype=np.uint8), np.zeros((0, 0), dtype=bool)
        )

    def mark(self, x: int, y: int, tile_px: int) -> None:
        """Notes that the level-0 tile at (x, y) is in the file."""
        if not self.cell:
            self.cell = tile_px
            rows, columns = (-(-(side + 1) * self.factor // tile_px) for side in (self.height, self.width))
            self.present = np.zeros((rows, columns), dtype=bool)
        row, column = y // tile_px, x // tile_px
        if row < self.present.shape[0] and column < self.present.shape[1]:
            self.present[row, column] = True

    def collect(self, tile: NDArray[np.uint8], x: int, y: int) -> None:
        """Puts the box means of a level-0 tile whose corner is the level-0 pixel (x, y) in their place."""
        small = _box_mean(tile, self.factor)
        left, top = x // self.factor, y // self.factor
        place = self.pixels[top : top + small.shape[0], left : left + small.shape[1]]
        place[:] = small[: place.shape[0], : place.shape[1]]

    def is_present(self, x: int, y: int, tile_px: int) -> bool:
        """True if the tile at (x, y) of this level covers any level-0 tile that is in the file."""
        if not self.cell:
            return False
        low_x, low_y = x * self.factor // self.cell, y * self.factor // self.cell
        high_x = -(-(x + tile_px) * self.factor // self.cell)
        high_y = -(-(y + tile_px) * self.factor // self.cell)
        return bool(self.present[low_y:high_y, low_x:high_x].any())

    def tile(self, x: int, y: int, tile_px: int, background: tuple[int, int, int]) -> NDArray[np.uint8]:
        """Cuts the tile at (x, y); beyond the edge it is filled with background."""
        part = self.pixels[y : y + tile_px, x : x + tile_px]
        if part.shape[:2] == (tile_px, tile_px):
            return np.ascontiguousarray(part)
        full = np.full((tile_px, tile_px, 3), background, dtype=np.uint8)
        full[: part.shape[0], : part.shape[1]] = part
        return full

    def reduced(self, factor: int, background: tuple[int, int, int]) -> ReducedLevel:
        """The next level, ``factor`` times smaller (its size is rounded down, as scanners do)."""
        width, height = self.width // factor, self.height // factor
        pixels = _box_mean(self.pixels[: height * factor, : width * factor], factor)
        return ReducedLevel(width, height, self.factor * factor, pixels, self.present, self.cell)

    def thumbnail(self, size_px: int) -> NDArray[np.uint8]:
        """A picture of the whole slide, at most ``size_px`` on its longer side."""
        return _box_mean(self.pixels, max(1, -(-max(self.width, self.height) // size_px)))
