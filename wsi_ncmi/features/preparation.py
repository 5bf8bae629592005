"""What is known of a slide before its tiles are encoded, and what is made of them afterwards."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.errors import SlideError
from wsi_ncmi.features.schema import EncoderFacts
from wsi_ncmi.features.task import SlideTask
from wsi_ncmi.features.writer import SlideFacts
from wsi_ncmi.slides import Slide, thumbnail
from wsi_ncmi.tiling import TileGrid, TileSelection, select_tiles
from wsi_ncmi.tissue import TissueMask, segment_tissue

__all__ = ["Embedded", "PreparedSlide", "prepare_slide"]

THUMBNAIL_PX = 1024
"""Longest side of the picture of a slide."""


@dataclass(frozen=True)
class Embedded:
    """Features of a slide and what the ledger should say of them.

    Attributes:
        features: float32 (N, D), one row a kept tile.
        coords: int64 (N, 2), level-0 corners.
        tissue_fraction: float16 (N,).
        slide: What the file tells about the slide.
        remark: For the ledger; empty when there is nothing to say.
    """

    features: NDArray[np.float32]
    coords: NDArray[np.int64]
    tissue_fraction: NDArray[np.float16]
    slide: SlideFacts
    remark: str


@dataclass(frozen=True, eq=False)  # arrays have no one truth value to compare by
class PreparedSlide:
    """A slide with its tissue found and its tiles chosen; their pixels are still to be read and encoded.

    Batches may be screened in any order and from several threads: each row is its own.

    Attributes:
        task: What to do with the slide.
        grid: Its grid.
        mask: Its tissue.
        selection: The tiles to read.
        notes: Sentences for the ledger that are known before any tile is read.
        thumbnail: uint8 (h, w, 3), the slide in small, for its picture.
        sound: bool (N,), set by :meth:`screen`: the tiles whose pixels were read.
    """

    task: SlideTask
    grid: TileGrid
    mask: TissueMask
    selection: TileSelection
    notes: tuple[str, ...]
    thumbnail: NDArray[np.uint8]
    sound: NDArray[np.bool_] = field(repr=False)

    def screen(self, rows: NDArray[np.int64], pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Looks at tiles that were read; every tile that could be read passes through here once.

        Args:
            rows: Their positions in the selection, int64 (n,).
            pixels: uint8 (n, h, w, 3), as read.

        Returns:
            bool (n,): True where the tile is to be encoded and kept.
        """
        self.sound[rows] = True
        return np.ones(len(rows), np.bool_)

    def normalise(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The pixels that the encoder is to see, of tiles that passed :meth:`screen`: uint8 (n, h, w, 3)."""
        return pixels

    def assemble(
        self,
        features: NDArray[np.float32],
        kept: NDArray[np.bool_],
        n_failed: int,
        encoder: EncoderFacts,
        reader_note: str,
        slide: Slide,
    ) -> Embedded:
        """Brings the encoded tiles together.

        Args:
            features: float32 (N, D), a row for every tile of the selection; rows not kept are not looked at.
            kept: bool (N,), the tiles that were encoded.
            n_failed: Tiles that could not be read.
            encoder: What encoded them.
            reader_note: What the tile reader has to say (``TileReader.note``).
            slide: The slide.

        Returns:
            The rows that the feature file gets; without tissue there are none.

        Raises:
            SlideError: Every single tile failed to be read.
            ValueError: The counts don't belong together.
        """
        count = len(self.selection)
        if len(features) != count or kept.shape != (count,) or int((~self.sound).sum()) != n_failed:
            raise ValueError(
                f"{len(features)} features, {kept.shape} flags and {n_failed} failed reads are not those of "
                f"{count} tiles, {int(self.sound.sum())} of which were screened"
            )
        path = self.task.record.path
        if n_failed and n_failed == count:
            raise SlideError(f"None of the {count} tissue tiles of {path} can be read; copy the slide again.")
        facts = SlideFacts(
            slide_id=self.task.record.slide_id,
            width_px=slide.width_px,
            height_px=slide.height_px,
            reader=slide.reader,
            mpp_source=self.task.mpp.source,
            read_level=self.grid.read_level,
            tile_size_level0=self.grid.tile_size_level0,
            n_failed_reads=n_failed,
            encoder_weights_source=encoder.weights_source,
            tissue_found=self.mask.parameters,
        )
        return Embedded(
            features=features if kept.all() else features[kept],
            coords=self.selection.coords[kept],
            tissue_fraction=self.selection.tissue_fraction[kept],
            slide=facts,
            remark=self._remark(reader_note, n_failed),
        )

    def _remark(self, reader_note: str, n_failed: int) -> str:
        remarks = [*self.notes, reader_note]
        if not self.mask.mask.any():
            remarks.append("no tissue found")
        elif not len(self.grid):
            remarks.append("no tissue found in a whole tile: the slide is smaller than one tile")
        elif not len(self.selection):
            remarks.append(f"no tissue found in {self.task.grid.min_tissue:.0%} of any tile")
        if n_failed:
            remarks.append(f"{n_failed} of {len(self.selection)} tiles can't be read and have no row")
        return "; ".join(remark.rstrip(".") for remark in remarks if remark)


def prepare_slide(task: SlideTask, slide: Slide) -> PreparedSlide:
    """Finds the tissue of a slide and chooses its tiles.

    Args:
        task: What to do.
        slide: The open slide. It has to stay open for reading tiles; the prepared slide does not hold it.

    Returns:
        All that is needed to read and encode tiles; a slide without tissue has an empty selection.

    Raises:
        SlideError: The slide is too coarse for the grid, or nothing of it can be read.
    """
    mask = segment_tissue(slide, task.mpp, task.tissue)
    grid = TileGrid.plan(slide.levels, task.mpp, task.grid)
    selection = select_tiles(grid, mask, task.grid.min_tissue)
    return PreparedSlide(
        task=task,
        grid=grid,
        mask=mask,
        selection=selection,
        notes=(slide.note, mask.note),
        thumbnail=thumbnail(slide, THUMBNAIL_PX),
        sound=np.zeros(len(selection), np.bool_),
    )
