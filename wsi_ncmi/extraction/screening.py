"""Artefacts tile by tile, and the stain of a slide: what is looked at between reading and encoding."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import SlideReadError
from wsi_ncmi.slides import Slide
from wsi_ncmi.tiling import TileGrid, TileReader, TileSelection
from wsi_ncmi.tissue import ARTIFACT_KINDS, ArtifactConfig, ArtifactMap, tile_blur

if TYPE_CHECKING:
    from wsi_ncmi.features.stain import StainNormaliser, StainTarget

__all__ = ["Screen", "stain_normaliser"]

_BLUR = ARTIFACT_KINDS.index("blur")
_BATCH = 16
# Pixels of a tile that its colours are measured on, along each side: larger tiles are thinned to it.
_SAMPLE_PX = 512


@dataclass(frozen=True, eq=False)  # arrays have no one truth value to compare by
class Screen:
    """Artefact scores of a slide's tiles, and which tiles they drop.

    Attributes:
        options: The rule and its thresholds.
        mpp: Resolution of the tiles, µm per pixel.
        scores: float16 (N, 4), 0 to 1, of the tiles that are read; the last column, blur, comes with the
            pixels.
        seen: bool (N,), the tiles whose pixels came.
        left_out: int64 (M,), places in the grid of tiles that were dropped before reading.
        left_out_scores: float16 (M, 4), theirs.
    """

    options: ArtifactConfig
    mpp: float
    scores: NDArray[np.float16]
    seen: NDArray[np.bool_] = field(repr=False)
    left_out: NDArray[np.int64] = field(repr=False)
    left_out_scores: NDArray[np.float16] = field(repr=False)

    @classmethod
    def of(
        cls, options: ArtifactConfig, grid: TileGrid, chosen: TileSelection, found: ArtifactMap
    ) -> tuple[Self, TileSelection]:
        """Scores the chosen tiles by what is seen on the slide in small.

        Args:
            options: The rule and its thresholds.
            grid: The slide's grid.
            chosen: Its tiles with tissue.
            found: Its pen marks, folds and borders.

        Returns:
            The screen, and the tiles that are left to read.
        """
        scores = np.zeros((len(chosen), len(ARTIFACT_KINDS)), np.float16)
        kinds = [ARTIFACT_KINDS.index(kind) for kind in found.kinds]
        scores[:, kinds] = np.clip(found.scores_in(grid.boxes(chosen.indices)), 0, 1)
        left = ~options.bad(scores) if options.rule == "drop" else np.ones(len(chosen), np.bool_)
        selection = chosen
        if not left.all():
            selection = TileSelection(chosen.indices[left], chosen.coords[left], chosen.tissue_fraction[left])
        screen = cls(
            options, grid.target_mpp, scores[left], np.zeros(len(selection), np.bool_),
            chosen.indices[~left], scores[~left],
        )  # fmt: skip
        return screen, selection

    def look(self, rows: NDArray[np.int64], pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Scores tiles that were read.

        Args:
            rows: Their positions among those that are read, int64 (n,).
            pixels: uint8 (n, h, w, 3).

        Returns:
            bool (n,): the tiles to keep under the rule.
        """
        self.scores[rows, _BLUR] = np.clip(tile_blur(pixels, self.mpp), 0, 1)
        self.seen[rows] = True
        if self.options.rule == "keep":
            return np.ones(len(rows), np.bool_)
        return ~self.options.bad(self.scores[rows])

    @property
    def dropped(self) -> NDArray[np.bool_]:
        """Tiles that were read and are dropped for what was seen, bool (N,)."""
        if self.options.rule == "keep":
            return np.zeros(len(self.seen), np.bool_)
        return self.seen & self.options.bad(self.scores)

    @property
    def n_dropped(self) -> int:
        """All dropped tiles, those that were never read included."""
        return len(self.left_out) + int(self.dropped.sum())

    @property
    def remark(self) -> str:
        """For the ledger: how many tiles were dropped and what for; empty when none was."""
        if not self.n_dropped:
            return ""
        scores = np.concatenate((self.left_out_scores, self.scores[self.dropped]))
        counts = []
        for column, kind in enumerate(ARTIFACT_KINDS):
            only = np.zeros_like(scores)
            only[:, column] = scores[:, column]
            if count := int(self.options.bad(only).sum()):
                counts.append(f"{kind} {count}")
        total = len(self.left_out) + len(self.scores)
        what = f"{self.n_dropped} of {total} tiles were dropped for artefacts ({', '.join(counts)})"
        return f"all tiles are lost: {what}" if self.n_dropped == total else what


def stain_normaliser(
    target: StainTarget | None, slide: Slide, grid: TileGrid, selection: TileSelection
) -> StainNormaliser | None:
    """Measures a slide's stain on a sample of its tiles.

    Args:
        target: What colours are brought to; None where they stay.
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
    places = sample_positions(len(selection), target.sample_tiles)
    sample = TileSelection(
        selection.indices[places], selection.coords[places], selection.tissue_fraction[places]
    )
    step = math.ceil(grid.tile_px / _SAMPLE_PX)
    with TileReader(slide, grid, sample) as reader:
        pixels = [
            batch.pixels[~batch.failed, ::step, ::step] for batch in reader.batches(max(1, _BATCH // step**2))
        ]
    read = np.concatenate(pixels)
    if not len(read):
        raise SlideReadError(
            f"None of the {len(sample)} tiles for measuring the stain can be read; copy the slide again."
        )
    return target.normaliser(read)
