"""Options of artefact screening."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from wsi_ncmi.core.config import configclass

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["ARTIFACT_KINDS", "DETECTORS", "ArtifactConfig"]

ARTIFACT_KINDS = ("pen", "fold", "border", "blur")
"""Names of a tile's artefact scores, in their order."""

DETECTORS = 4
"""Version of the detectors: raised when they score tiles otherwise than before."""

_Share = Annotated[float, Field(gt=0, le=1)]


@configclass
class ArtifactConfig:
    """What is done with tiles that show an artefact.

    Every tile's scores are stored whatever the rule; the rule says whether a bad tile is left out. A tile is
    bad when one of its scores reaches the threshold of its kind.

    Attributes:
        rule: ``keep`` stores the scores only, ``drop`` leaves bad tiles out.
        pen: Share of the tile under pen ink.
        fold: Share of the tile on a tissue fold.
        border: Share of the tile on a black or grey border of the scan.
        blur: Share of the tile's detail that is out of focus.
    """

    rule: Literal["keep", "drop"] = "keep"
    pen: _Share = 0.1
    fold: _Share = 0.1
    border: _Share = 0.1
    blur: _Share = 0.33

    def bad(self, scores: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Which tiles show an artefact, whatever the rule.

        Args:
            scores: Float (N, 4), columns as ``ARTIFACT_KINDS``; a score that isn't a number isn't bad.

        Returns:
            bool (N,).
        """
        import numpy as np  # the help of a verb, which reads this class, does without

        if scores.ndim != 2 or scores.shape[1] != len(ARTIFACT_KINDS):
            raise ValueError(f"Scores must be (N, {len(ARTIFACT_KINDS)}), not {scores.shape}.")
        # Stored as float16: a score at its limit must not fall below it by rounding.
        limits = np.array([self.pen, self.fold, self.border, self.blur]).astype(np.float16)
        with np.errstate(invalid="ignore"):
            reached: NDArray[np.bool_] = np.any(scores.astype(np.float16) >= limits, axis=1)
        return reached
