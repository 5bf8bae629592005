"""One slide: prepared for encoding, and its embeddings assembled."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import SlideError, SlideReadError
from wsi_ncmi.encoders import EncoderInfo
from wsi_ncmi.extraction.artifact_filter import ArtifactFilter, found_artifacts
from wsi_ncmi.extraction.slide_analysis import analyse_slide
from wsi_ncmi.extraction.task import SlideTask
from wsi_ncmi.features.writer import SlideAttributes
from wsi_ncmi.slides import Slide
from wsi_ncmi.tiling import TileGrid, TileReader, TileSelection, select_tiles
from wsi_ncmi.tissue import ArtifactMap, TissueMask

if TYPE_CHECKING:
    from wsi_ncmi.features.stain import StainNormaliser, StainTarget

_SAMPLE_BATCH = 16
# Pixels of a tile that its colours are measured on, along each side: larger tiles are thinned to it.
_SAMPLE_PX = 512


@dataclass(frozen=True, eq=False)  # arrays have no one truth value to compare by
class SlideEmbedding:
    """Embeddings of a slide, and its remark for the ledger.

    Attributes:
        features: float (N, D), one row a kept tile.
        coords: int64 (N, 2), level-0 corners.
        tissue_fraction: float16 (N,).
        artifacts: float16 (N, 4), scores in the order of ``ARTIFACT_KINDS``.
        slide: Metadata of the slide for the file.
        remark: For the ledger; empty when there is nothing to say.
        artifacts_found: For the ledger, from ``found_artifacts``.
        kept: bool, which tiles of the selection these are.
    """

    features: NDArray[np.floating[Any]]
    coords: NDArray[np.int64]
    tissue_fraction: NDArray[np.float16]
    artifacts: NDArray[np.float16]
    slide: SlideAttributes
    remark: str
    artifacts_found: Mapping[str, Any]
    kept: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class PreparedSlide:
    """A slide with its tissue found and its tiles chosen; their pixels are still to be read and encoded.

    Attributes:
        task: What to do with the slide.
        grid: Its grid.
        mask: Its tissue.
        origin: Level-0 pixel from which QuPath counts (``Slide.origin``).
        artifact_map: Its pen marks, folds and borders.
        selection: The tiles to read.
        notes: Sentences for the ledger that are known before any tile is read.
        thumbnail: uint8 (h, w, 3), the slide without drawings.
        artifact_filter: Artefact scores of the tiles.
        normaliser: Gives tiles the stain of the target; None where colours stay.
    """

    task: SlideTask
    grid: TileGrid
    mask: TissueMask
    origin: tuple[int, int]
    artifact_map: ArtifactMap
    selection: TileSelection
    notes: tuple[str, ...]
    thumbnail: NDArray[np.uint8] = field(repr=False)
    artifact_filter: ArtifactFilter
    normaliser: StainNormaliser | None = None

    def normalise(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Pixels for the encoder, of tiles that passed ``artifact_filter``: uint8 (n, h, w, 3)."""
        return pixels if self.normaliser is None else self.normaliser.apply(pixels)

    def assemble(
        self,
        features: NDArray[np.floating[Any]],
        kept: NDArray[np.bool_],
        n_failed: int,
        encoder: EncoderInfo,
        reader_note: str,
        slide: Slide,
    ) -> SlideEmbedding:
        """Assembles the rows of the kept tiles.

        Args:
            features: float (N, D), a row for every tile of the selection; rows not kept are ignored.
            kept: bool (N,), the tiles that were encoded.
            n_failed: Tiles that could not be read.
            encoder: The encoder.
            reader_note: What the tile reader has to say (``TileReader.note``).
            slide: The slide.

        Returns:
            The rows that the feature file gets; without tissue there are none.

        Raises:
            SlideError: Every single tile failed to be read.
            ValueError: The counts don't belong together.
        """
        count, read = len(self.selection), self.artifact_filter.scored
        if len(features) != count or kept.shape != (count,) or int((~read).sum()) != n_failed:
            raise ValueError(
                f"{len(features)} features, {kept.shape} flags and {n_failed} failed reads are not those of "
                f"{count} tiles, {int(read.sum())} of which were scored"
            )
        path = self.task.record.path
        if n_failed and n_failed == count:
            raise SlideError(f"None of the {count} tissue tiles of {path} can be read; copy the slide again.")
        metadata = SlideAttributes(
            slide_id=self.task.record.slide_id,
            width_px=slide.width_px,
            height_px=slide.height_px,
            reader=slide.reader,
            mpp_source=self.task.mpp.source,
            read_level=self.grid.read_level,
            tile_size_level0=self.grid.tile_size_level0,
            n_failed_reads=n_failed,
            n_artifact_tiles=self.artifact_filter.n_dropped,
            encoder_weights_source=encoder.weights_source,
            encoder_licence=encoder.licence,
            tissue_found=self.mask.parameters,
            stain_found="" if self.normaliser is None else self.normaliser.identity,
        )
        return SlideEmbedding(
            features=features if kept.all() else features[kept],
            coords=self.selection.coords[kept],
            tissue_fraction=self.selection.tissue_fraction[kept],
            artifacts=self.artifact_filter.scores[kept],
            slide=metadata,
            remark=self._remark(reader_note, n_failed),
            artifacts_found=found_artifacts(self.task.config.artifacts, self.artifact_filter.all_scores),
            kept=kept,
        )

    def _remark(self, reader_note: str, n_failed: int) -> str:
        remarks = [*self.notes, reader_note]
        if not self.mask.mask.any():
            hidden = {kind: self.artifact_map.where(kind).mean() for kind in self.artifact_map.kinds}
            taken = ", ".join(f"{kind} {share:.2g}" for kind, share in hidden.items() if share)
            remarks.append(
                "no tissue found" + (f" beside artefacts (share of the slide: {taken})" if taken else "")
            )
        elif not len(self.grid):
            remarks.append("no tissue found in a whole tile: the slide is smaller than one tile")
        elif not len(self.selection) and not self.artifact_filter.n_dropped:
            remarks.append(
                f"no tissue found in {self.task.config.grid.min_tissue:.0%} of any tile: all "
                f"{self.mask.area_mm2(self.task.mpp):.2g} mm² of it lie in pieces smaller than a tile "
                "(grid.min_tissue sets the share)"
            )
        remarks.append(self.artifact_filter.remark)
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
        the artefact rule drops by the artefact map are left out of the selection.

    Raises:
        SlideError: The slide is too coarse for the grid, nothing of it can be read, its annotations changed
            since the job began, or its stain can't be measured.
        InputError: Its annotations can't be read.
    """
    grid = TileGrid.plan(slide.levels, task.mpp, task.config.grid)  # before anything is read: it may refuse
    found = analyse_slide(task, slide)
    chosen = select_tiles(grid, found.mask, task.config.grid.min_tissue)
    artifact_filter, selection = ArtifactFilter.from_map(task.config.artifacts, grid, chosen, found.artifacts)
    return PreparedSlide(
        task=task,
        grid=grid,
        mask=found.mask,
        origin=slide.origin,
        artifact_map=found.artifacts,
        selection=selection,
        notes=(slide.note, found.mask.note, found.remark),
        thumbnail=found.thumbnail,
        artifact_filter=artifact_filter,
        normaliser=_stain_normaliser(task.stain, slide, grid, selection),
    )


def _stain_normaliser(
    target: StainTarget | None, slide: Slide, grid: TileGrid, selection: TileSelection
) -> StainNormaliser | None:
    """Measures a slide's stain on a sample of its tiles.

    Args:
        target: Target of the job; None without stain normalisation.
        slide: The open slide.
        grid: Its grid.
        selection: Its tiles; without any there is nothing to measure and nothing to change.

    Raises:
        StainFitError: The stain can't be measured on the sample.
        SlideReadError: No tile of the sample can be read.
    """
    from wsi_ncmi.features.stain import sample_positions

    if target is None or not len(selection):
        return None
    sampled = sample_positions(len(selection), target.sample_tiles)
    sample = TileSelection(
        selection.indices[sampled], selection.coords[sampled], selection.tissue_fraction[sampled]
    )
    step = math.ceil(grid.tile_px / _SAMPLE_PX)
    with TileReader(slide, grid, sample) as reader:
        pixels = [
            batch.pixels[~batch.failed, ::step, ::step]
            for batch in reader.batches(max(1, _SAMPLE_BATCH // step**2))
        ]
    read = np.concatenate(pixels)
    if not len(read):
        raise SlideReadError(
            f"None of the {len(sample)} tiles for measuring the stain can be read; copy the slide again."
        )
    return target.normaliser(read)
