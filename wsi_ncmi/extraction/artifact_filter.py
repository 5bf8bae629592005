"""Artefact scores of a slide's tiles, and the tiles that they drop."""

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.tiling import TileGrid, TileSelection
from wsi_ncmi.tissue import ARTIFACT_KINDS, ArtifactConfig, ArtifactMap, tile_blur

_BLUR = ARTIFACT_KINDS.index("blur")


@dataclass(frozen=True, eq=False)  # arrays have no one truth value to compare by
class ArtifactFilter:
    """Artefact scores of a slide's tiles, and the rule that drops tiles by them.

    Attributes:
        config: The rule and its thresholds.
        mpp: Resolution of the tiles, µm per pixel.
        scores: float16 (N, 4), 0 to 1, of the tiles that are read; the last column, blur, comes with the
            pixels.
        scored: bool (N,), the tiles that were read.
        left_out: int64 (M,), grid indices of tiles that were dropped before reading.
        left_out_scores: float16 (M, 4), theirs.
        blur_is_told: The map tells what is out of focus, so that it isn't measured on the pixels.
    """

    config: ArtifactConfig
    mpp: float
    scores: NDArray[np.float16]
    scored: NDArray[np.bool_] = field(repr=False)
    left_out: NDArray[np.int64] = field(repr=False)
    left_out_scores: NDArray[np.float16] = field(repr=False)
    blur_is_told: bool = False

    @classmethod
    def from_map(
        cls, config: ArtifactConfig, grid: TileGrid, chosen: TileSelection, found: ArtifactMap
    ) -> tuple[Self, TileSelection]:
        """Scores the chosen tiles by the slide's artefact map.

        Args:
            config: The rule and its thresholds.
            grid: The slide's grid.
            chosen: Its tiles with tissue.
            found: Its pen marks, folds and borders.

        Returns:
            The filter, and the tiles that are left to read.
        """
        scores = np.zeros((len(chosen), len(ARTIFACT_KINDS)), np.float16)
        kinds = [ARTIFACT_KINDS.index(kind) for kind in found.kinds]
        scores[:, kinds] = np.clip(found.scores_in(grid.boxes(chosen.indices)), 0, 1)
        left = ~config.bad(scores) if config.rule == "drop" else np.ones(len(chosen), np.bool_)
        selection = chosen
        if not left.all():
            selection = TileSelection(chosen.indices[left], chosen.coords[left], chosen.tissue_fraction[left])
        filtered = cls(
            config, grid.target_mpp, scores[left], np.zeros(len(selection), np.bool_),
            chosen.indices[~left], scores[~left], "blur" in found.kinds,
        )  # fmt: skip
        return filtered, selection

    def score(self, rows: NDArray[np.int64], pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Scores tiles that were read; each passes here once, in any order and from any thread.

        Args:
            rows: Their positions among those that are read, int64 (n,).
            pixels: uint8 (n, h, w, 3).

        Returns:
            bool (n,): the tiles to keep under the rule.
        """
        if not self.blur_is_told:
            self.scores[rows, _BLUR] = np.clip(tile_blur(pixels, self.mpp), 0, 1)
        self.scored[rows] = True
        if self.config.rule == "keep":
            return np.ones(len(rows), np.bool_)
        return ~self.config.bad(self.scores[rows])

    @property
    def dropped(self) -> NDArray[np.bool_]:
        """Tiles that were read and are dropped for their score, bool (N,)."""
        if self.config.rule == "keep":
            return np.zeros(len(self.scored), np.bool_)
        return self.scored & self.config.bad(self.scores)

    @property
    def n_dropped(self) -> int:
        """All dropped tiles, those that were never read included."""
        return len(self.left_out) + int(self.dropped.sum())

    @property
    def all_scores(self) -> NDArray[np.float16]:
        """float16 (N + M, 4), of all tiles with tissue: those that are read, and those dropped before."""
        return np.concatenate((self.scores, self.left_out_scores))

    @property
    def remark(self) -> str:
        """For the ledger: how many tiles show artefacts, and what became of them; empty without any."""
        scores = self.all_scores
        if not (found := int(self.config.bad(scores).sum())):
            return ""
        kinds = ", ".join(f"{kind} {n}" for kind, n in self.config.counts(scores).items() if n)
        if self.config.rule == "keep":
            return f"{found} of {len(scores)} tiles show artefacts and were kept ({kinds})"
        what = f"{self.n_dropped} of {len(scores)} tiles were dropped for artefacts ({kinds})"
        return f"all tiles are lost: {what}" if self.n_dropped == len(scores) else what


def found_artifacts(
    config: ArtifactConfig, scores: NDArray[np.float16], *, dropped: int = 0
) -> dict[str, Any]:
    """Tiles in which artefacts were found, by the ledger's fields: any (``artifacts_found``), and each kind.

    Args:
        config: The thresholds.
        scores: float16 (N, 4); other columns, of other versions, say nothing.
        dropped: Tiles that were dropped and have no scores any more.
    """
    if scores.shape[1] != len(ARTIFACT_KINDS):
        return {}
    return {"artifacts_found": int(config.bad(scores).sum()) + dropped, **config.counts(scores)}
