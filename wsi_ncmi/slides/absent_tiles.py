"""Tiles that a TIFF-based slide does not store, and the directories of its levels.

CAMELYON's files leave out the tiles of pure background: byte count 0 in the table of tiles. OpenSlide gives
such places transparent, in generic tiled TIFF and in Philips TIFF alike, so they need not be read to be
known. In Aperio's files it draws them from the next finer level, and other formats move their tiles.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.slides.base import Slide
from wsi_ncmi.slides.tiff_layout import TiffDirectory, read_tiff_layout

_VENDORS = ("generic-tiff", "philips")


@dataclass(frozen=True, eq=False)
class AbsentTiles:
    """The absent tiles of one level.

    Attributes:
        stored: int32 (rows + 1, columns + 1): the number of stored tiles above and left of each corner.
        tile_width_px: Width of a tile in pixels of the level.
        tile_height_px: Its height.
    """

    stored: NDArray[np.int32]
    tile_width_px: int
    tile_height_px: int

    def cover(self, x: int, y: int, width: int, height: int) -> bool:
        """True if a rectangle in pixels of the level, inside it, touches no stored tile."""
        left, right = x // self.tile_width_px, -(-(x + width) // self.tile_width_px)
        top, bottom = y // self.tile_height_px, -(-(y + height) // self.tile_height_px)
        table = self.stored
        return bool(table[bottom, right] - table[top, right] - table[bottom, left] + table[top, left] == 0)


def find_absent_tiles(slide: Slide, level: int) -> AbsentTiles | None:
    """Finds the absent tiles of a level.

    Args:
        slide: An open slide.
        level: Index of the level.

    Returns:
        The absent tiles; None when there are none, or where it can't be proven that their places are
        background (another format, a directory that does not fit the level).
    """
    directories = level_directories(slide) if slide.vendor in _VENDORS else ()
    if not directories or not _fits(directories[slide.numbers[level]], slide, level):
        return None
    chosen = directories[slide.numbers[level]]
    present = chosen.byte_counts > 0
    if present.all():
        return None
    across = -(-chosen.width_px // chosen.tile_width_px)
    down = -(-chosen.height_px // chosen.tile_height_px)
    table = np.zeros((down + 1, across + 1), dtype=np.int32)
    table[1:, 1:] = present.reshape(down, across).cumsum(axis=0, dtype=np.int32).cumsum(axis=1)
    return AbsentTiles(table, chosen.tile_width_px, chosen.tile_height_px)


def level_directories(slide: Slide) -> tuple[TiffDirectory, ...]:
    """The directory of each level that the slide's reader finds; empty where they can't be told apart."""
    try:
        layout = read_tiff_layout(slide.path)
    except OSError:  # a remote slide
        return ()
    if layout is None or layout.damage:
        return ()
    tiled = [directory for directory in layout.directories if directory.tiled]
    if len(tiled) != len(slide.reader_levels):
        sizes = [(level.width_px, level.height_px) for level in slide.reader_levels]
        images = [
            image
            for image in layout.tiled_images
            if [(directory.width_px, directory.height_px) for directory in image] == sizes
        ]
        tiled = images[0] if len(images) == 1 else []
    # Finest first, as the levels are; a stable sort, so that equal sizes keep their order in the file.
    return tuple(sorted(tiled, key=lambda directory: -directory.width_px * directory.height_px))


def _fits(directory: TiffDirectory, slide: Slide, level: int) -> bool:
    view = slide.levels[level]
    wide, high = directory.tile_width_px, directory.tile_height_px
    if min(wide, high) < 1:
        return False
    # Philips pads its levels to whole tiles; elsewhere the sizes agree. Separate colour planes list each
    # tile three times and do not fit.
    spare_x, spare_y = (wide, high) if slide.vendor == "philips" else (1, 1)
    tiles = -(-directory.width_px // wide) * -(-directory.height_px // high)
    return (
        0 <= directory.width_px - view.width_px < spare_x
        and 0 <= directory.height_px - view.height_px < spare_y
        and len(directory.byte_counts) == tiles
    )
