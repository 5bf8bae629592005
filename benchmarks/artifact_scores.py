"""Recall and precision of artefact tiles, kind by kind, with intervals over slides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.tissue import ARTIFACT_KINDS, ArtifactConfig

__all__ = ["KINDS", "Tiles", "interval", "recall_and_precision"]

KINDS = ARTIFACT_KINDS
_LEAST_SHARE = {"pen": 0.1, "fold": 0.1, "border": 0.1, "blur": 0.5}
_RESAMPLES = 1000


@dataclass(frozen=True, eq=False)
class Tiles:
    """Truth and verdict of every tile of some slides.

    Attributes:
        true: Per slide bool (N, 4): the tile has the artefact and is among those judged for it.
        called: The same of the verdicts.
        centres: Name of each slide's centre.
    """

    true: Sequence[NDArray[np.bool_]]
    called: Sequence[NDArray[np.bool_]]
    centres: Sequence[str]

    @classmethod
    def of(
        cls, slides: Sequence[Mapping[str, NDArray[np.float64]]], centres: Sequence[str], least_tissue: float
    ) -> Tiles:
        """Judges scores by the limits of :class:`ArtifactConfig`.

        Args:
            slides: Per slide ``shares`` (N, 4), ``tissue`` (N,) and ``scores`` (N, 4).
            centres: Name of each slide's centre.
            least_tissue: Share of tissue from which tiles are judged for anything but borders.
        """
        least = np.array([_LEAST_SHARE[kind] for kind in KINDS])
        true, called = [], []
        for slide in slides:
            judged = np.repeat(slide["tissue"][:, None] >= least_tissue, len(KINDS), axis=1)
            judged[:, KINDS.index("border")] = True
            true.append((slide["shares"] >= least) & judged)
            called.append(_verdicts(slide["scores"]) & judged)
        return cls(true, called, centres)

    def counts(self, kind: str) -> NDArray[np.float64]:
        """Per slide: tiles that have it, that are called, and both, float64 (slides, 3)."""
        columns = list(range(len(KINDS))) if kind == "all" else [KINDS.index(kind)]
        rows = []
        for true, called in zip(self.true, self.called, strict=True):
            a, b = true[:, columns].any(axis=1), called[:, columns].any(axis=1)
            rows.append((a.sum(), b.sum(), (a & b).sum()))
        return np.array(rows, np.float64)


def _verdicts(scores: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which kinds reach their limit, bool (N, 4), by the very rule of extraction."""
    options = ArtifactConfig()
    verdicts = np.zeros(scores.shape, np.bool_)
    for column in range(len(KINDS)):
        only = np.zeros_like(scores)
        only[:, column] = scores[:, column]
        verdicts[:, column] = options.bad(only)
    return verdicts


def recall_and_precision(counts: NDArray[np.float64]) -> tuple[float, float]:
    """From the sums of :meth:`Tiles.counts`; not a number where there is nothing to judge."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(counts[2] / counts[0]), float(counts[2] / counts[1])


def interval(counts: NDArray[np.float64], which: int) -> str:
    """95 % percentile interval of recall (0) or precision (1), drawing slides."""
    rng = np.random.default_rng(0)
    drawn = counts[rng.integers(0, len(counts), (_RESAMPLES, len(counts)))].sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        low, high = np.nanpercentile(drawn[:, 2] / drawn[:, which], (2.5, 97.5))
    return f"{low:.2f} to {high:.2f}"
