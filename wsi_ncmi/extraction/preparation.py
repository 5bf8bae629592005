"""What is known of a slide before its tiles are encoded, and what is made of them afterwards."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import SlideError
from wsi_ncmi.encoders import EncoderInfo
from wsi_ncmi.extraction.findings import find_on_slide
from wsi_ncmi.extraction.screening import Screen, stain_normaliser
from wsi_ncmi.extraction.task import SlideTask
from wsi_ncmi.features.writer import SlideMetadata
from wsi_ncmi.slides import Slide
from wsi_ncmi.tiling import TileGrid, TileSelection, select_tiles
from wsi_ncmi.tissue import ArtifactMap, TissueMask

if TYPE_CHECKING:
    from wsi_ncmi.features.stain import StainNormaliser

__all__ = ["Embedded", "PreparedSlide", "prepare_slide"]


@dataclass(frozen=True, eq=False)  # arrays have no one truth value to compare by
class Embedded:
    """Features of a slide and what the ledger should say of them.

    Attributes:
        features: float (N, D), one row a kept tile.
        coords: int64 (N, 2), level-0 corners.
        tissue_fraction: float16 (N,).
        artifacts: float16 (N, 4), scores in the order of ``ARTIFACT_KINDS``.
        slide: What the file tells about the slide.
        remark: For the ledger; empty when there is nothing to say.
        kept: bool, which tiles of the selection these are.
    """

    features: NDArray[np.floating[Any]]
    coords: NDArray[np.int64]
    tissue_fraction: NDArray[np.float16]
    artifacts: NDArray[np.float16]
    slide: SlideMetadata
    remark: str
    kept: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class PreparedSlide:
    """A slide with its tissue found and its tiles chosen; their pixels are still to be read and encoded.

    Batches may be screened in any order and from several threads: each row is its own.

    Attributes:
        task: What to do with the slide.
        grid: Its grid.
        mask: Its tissue.
        artifact_map: Its pen marks, folds and borders.
        selection: The tiles to read.
        notes: Sentences for the ledger that are known before any tile is read.
        picture: uint8 (h, w, 3), the slide in small.
        screening: Artefact scores of the tiles.
        normaliser: What gives tiles the target's stain; None where colours stay.
    """

    task: SlideTask
    grid: TileGrid
    mask: TissueMask
    artifact_map: ArtifactMap
    selection: TileSelection
    notes: tuple[str, ...]
    picture: NDArray[np.uint8] = field(repr=False)
    screening: Screen
    normaliser: StainNormaliser | None = None

    def screen(self, rows: NDArray[np.int64], pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Looks at tiles that were read; every tile that could be read passes through here once.

        Args:
            rows: Their positions in the selection, int64 (n,).
            pixels: uint8 (n, h, w, 3), as read.

        Returns:
            bool (n,): True where the tile is to be encoded and kept.
        """
        return self.screening.look(rows, pixels)

    def normalise(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The pixels that the encoder is to see, of tiles that passed :meth:`screen`: uint8 (n, h, w, 3)."""
        return pixels if self.normaliser is None else self.normaliser.apply(pixels)

    def assemble(
        self,
        features: NDArray[np.floating[Any]],
        kept: NDArray[np.bool_],
        n_failed: int,
        encoder: EncoderInfo,
        reader_note: str,
        slide: Slide,
    ) -> Embedded:
        """Brings the encoded tiles together.

        Args:
            features: float (N, D), a row for every tile of the selection; rows not kept are not looked at.
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
        count, read = len(self.selection), self.screening.seen
        if len(features) != count or kept.shape != (count,) or int((~read).sum()) != n_failed:
            raise ValueError(
                f"{len(features)} features, {kept.shape} flags and {n_failed} failed reads are not those of "
                f"{count} tiles, {int(read.sum())} of which were screened"
            )
        path = self.task.record.path
        if n_failed and n_failed == count:
            raise SlideError(f"None of the {count} tissue tiles of {path} can be read; copy the slide again.")
        facts = SlideMetadata(
            slide_id=self.task.record.slide_id,
            width_px=slide.width_px,
            height_px=slide.height_px,
            reader=slide.reader,
            mpp_source=self.task.mpp.source,
            read_level=self.grid.read_level,
            tile_size_level0=self.grid.tile_size_level0,
            n_failed_reads=n_failed,
            n_artifact_tiles=self.screening.n_dropped,
            encoder_weights_source=encoder.weights_source,
            tissue_found=self.mask.parameters,
            stain_found="" if self.normaliser is None else self.normaliser.identity,
        )
        return Embedded(
            features=features if kept.all() else features[kept],
            coords=self.selection.coords[kept],
            tissue_fraction=self.selection.tissue_fraction[kept],
            artifacts=self.screening.scores[kept],
            slide=facts,
            remark=self._remark(reader_note, n_failed),
            kept=kept,
        )

    def _remark(self, reader_note: str, n_failed: int) -> str:
        remarks = [*self.notes, reader_note]
        if not self.mask.mask.any():
            remarks.append("no tissue found")
        elif not len(self.grid):
            remarks.append("no tissue found in a whole tile: the slide is smaller than one tile")
        elif not len(self.selection) and not self.screening.n_dropped:
            remarks.append(f"no tissue found in {self.task.grid.min_tissue:.0%} of any tile")
        remarks.append(self.screening.remark)
        if n_failed:
            remarks.append(f"{n_failed} of {len(self.selection)} tiles can't be read and have no row")
        return "; ".join(remark.rstrip(".") for remark in remarks if remark)


def prepare_slide(task: SlideTask, slide: Slide) -> PreparedSlide:
    """Finds the tissue and the artefacts of a slide, chooses its tiles, and measures its stain where asked.

    Args:
        task: What to do.
        slide: The open slide. It has to stay open for reading tiles; the prepared slide does not hold it.

    Returns:
        All that is needed to read and encode tiles; a slide without tissue has an empty selection. Tiles that
        the artefact rule drops for what is seen on the slide in small are left out of the selection.

    Raises:
        SlideError: The slide is too coarse for the grid, nothing of it can be read, its annotations changed
            since the job began, or its stain can't be measured.
        InputError: Its annotations can't be read.
    """
    grid = TileGrid.plan(slide.levels, task.mpp, task.grid)  # before anything is read: it may refuse
    found = find_on_slide(task, slide)
    chosen = select_tiles(grid, found.mask, task.grid.min_tissue)
    screening, selection = Screen.of(task.artifacts, grid, chosen, found.artifacts)
    return PreparedSlide(
        task=task,
        grid=grid,
        mask=found.mask,
        artifact_map=found.artifacts,
        selection=selection,
        notes=(slide.note, found.mask.note, found.remark),
        picture=found.picture,
        screening=screening,
        normaliser=stain_normaliser(task.stain, slide, grid, selection),
    )
