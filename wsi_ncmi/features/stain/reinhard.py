"""Mean and spread of each axis of lαβ brought to the target's.

Reinhard et al., "Color transfer between images", IEEE CG&A 21 (2001). RGB is changed to cone responses LMS
and their logarithms to the decorrelated axes lαβ (Ruderman, Cronin & Chiao 1998); each axis is shifted and
scaled, and the way is gone back. Statistics are taken of tissue alone, so that the share of glass doesn't
matter. Natural logarithms of intensities from 1 to 255 are used, as in HistomicsTK, whose target is the
default.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.features.stain.density import LEAST_DENSITY, MOST_DENSITY, WHITE, is_tissue
from wsi_ncmi.features.stain.model import ColourMap, StainFitError, StainModel

__all__ = ["ReinhardModel"]

# Reinhard et al. 2001, eq. 4 (RGB to LMS) and eq. 6 (logarithms of LMS to lαβ).
_TO_LMS = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
_TO_LAB = np.diag([3**-0.5, 6**-0.5, 2**-0.5]) @ np.array([[1.0, 1, 1], [1, 1, -2], [1, -1, 0]])
_LEAST_SPREAD = (0.02, 0.002, 0.001)
_Lab = tuple[float, float, float]


@dataclass(frozen=True)
class ReinhardModel(StainModel):
    """Statistics of tissue in lαβ.

    Attributes:
        mean: Of l, α and β.
        spread: Standard deviations of l, α and β.
    """

    mean: _Lab
    spread: _Lab
    method: ClassVar[str] = "reinhard"

    @classmethod
    def fit(cls, pixels: NDArray[np.uint8]) -> Self:
        """See the base class."""
        lab = np.log(np.maximum(pixels[is_tissue(pixels)], 1) @ _TO_LMS.T) @ _TO_LAB.T
        mean, spread = lab.mean(axis=0), lab.std(axis=0)
        if (spread < _LEAST_SPREAD).any():
            raise StainFitError(
                "The stain can't be measured: the tissue shows no contrast or no colour; extract without "
                "stain normalisation."
            )
        l, a, b = ((float(m), float(s)) for m, s in zip(mean, spread, strict=True))  # noqa: E741 - its name
        return cls((l[0], a[0], b[0]), (l[1], a[1], b[1]))

    @classmethod
    def builtin(cls) -> Self:
        """The colour standard of Amgad et al. 2019 (region of TCGA-A2-A3XS-DX1), as HistomicsTK gives it."""
        return cls((8.74108109, -0.12440419, 0.0444982), (0.6135447, 0.10989545, 0.0286032))

    @classmethod
    def constants(cls) -> dict[str, float]:
        """See the base class."""
        return {"white": WHITE, "beta": LEAST_DENSITY, "black": MOST_DENSITY}

    def map_to(self, target: Self) -> ColourMap:
        """See the base class."""
        scale = np.diag(np.array(target.spread) / np.array(self.spread))
        back = np.linalg.inv(_TO_LAB)
        matrix = back @ scale @ _TO_LAB
        offset = back @ (np.array(target.mean) - scale @ np.array(self.mean))
        to_lms, to_rgb = _TO_LMS.astype(np.float32), np.linalg.inv(_TO_LMS).astype(np.float32)
        change, start = matrix.astype(np.float32), offset.astype(np.float32)

        def colours(
            pixels: NDArray[np.uint8],
        ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
            planes = np.maximum(pixels.T, 1).astype(np.float32, order="C")
            logs = np.log(_combined(to_lms, planes))
            cones = _combined(change, logs)
            cones += start[:, None]
            rgb = _combined(to_rgb, np.exp(cones, out=cones))
            return rgb[0], rgb[1], rgb[2]

        return colours


def _combined(matrix: NDArray[np.float32], planes: NDArray[np.float32]) -> NDArray[np.float32]:
    # Not one product of matrices, whose rounding depends on the number of pixels.
    out = np.empty_like(planes)
    for plane, row in zip(out, matrix, strict=True):
        np.multiply(planes[0], row[0], out=plane)
        plane += planes[1] * row[1]
        plane += planes[2] * row[2]
    return out
