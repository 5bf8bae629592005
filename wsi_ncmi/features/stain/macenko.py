"""Stain vectors from the extreme angles in the plane of optical densities.

Macenko et al., "A method for normalizing histology slides for quantitative analysis", ISBI 2009. Densities
are projected on the plane of their two largest singular vectors (through the origin, as in the paper); the
1st and 99th percentile of the angle give the two stain vectors, the 99th percentile of each concentration its
strength. Angles are taken of pixels that are dense in every channel, for the others are noise (an eosin that
lets red light through is found some degrees off for it); strengths of all tissue, so that the share of glass
doesn't matter. A colour is changed by exchanging vectors and scaling strengths:
``OD' = S_target · diag(max_target / max_source) · S_source⁺ · OD``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.features.stain.density import LEAST_DENSITY, LOG_TABLE, MOST_DENSITY, WHITE, tissue_densities
from wsi_ncmi.features.stain.model import ColourMap, StainFitError, StainModel

__all__ = ["MacenkoModel"]

_ALPHA = 1.0
_STRENGTH_PERCENTILE = 99.0
_LEAST_ANGLE_DEG = 5.0
_LEAST_STRENGTH = 0.1
_REMEDY = "extract with --stain reinhard, or without stain normalisation"
_Rgb = tuple[float, float, float]


@dataclass(frozen=True)
class MacenkoModel(StainModel):
    """Stain vectors and strengths.

    Attributes:
        haematoxylin: Unit vector of optical density in R, G, B.
        eosin: The same of the other stain.
        strengths: 99th percentile of the concentrations of haematoxylin and eosin in tissue.
    """

    haematoxylin: _Rgb
    eosin: _Rgb
    strengths: tuple[float, float]
    method: ClassVar[str] = "macenko"

    @classmethod
    def fit(cls, pixels: NDArray[np.uint8]) -> Self:
        """See the base class."""
        dense, tissue = tissue_densities(pixels)
        _, vectors = np.linalg.eigh(dense.T @ dense)
        plane = vectors[:, [2, 1]]
        # The sign of a singular vector is arbitrary; tissue must lie at positive first coordinates, or the
        # angles would jump at ±π.
        plane = plane * np.where(plane.sum(axis=0) < 0, -1.0, 1.0)
        flat = dense @ plane
        angles = np.percentile(np.arctan2(flat[:, 1], flat[:, 0]), [_ALPHA, 100 - _ALPHA])
        if np.degrees(angles[1] - angles[0]) < _LEAST_ANGLE_DEG:
            raise StainFitError(
                "The stain can't be measured: the tissue shows a single colour, haematoxylin and eosin can't "
                f"be told apart; {_REMEDY}."
            )
        extremes = (plane @ np.array([np.cos(angles), np.sin(angles)])).T
        # Haematoxylin is blue: it absorbs more red light than eosin does.
        stains = extremes[np.argsort(-extremes[:, 0])]
        strengths = np.percentile(tissue @ np.linalg.pinv(stains), _STRENGTH_PERCENTILE, axis=0)
        if (strengths < _LEAST_STRENGTH).any():
            raise StainFitError(
                f"The stain can't be measured: one of the two stains is nearly absent; {_REMEDY}."
            )
        h, e = ((float(r), float(g), float(b)) for r, g, b in stains)
        return cls(h, e, (float(strengths[0]), float(strengths[1])))

    @classmethod
    def builtin(cls) -> Self:
        """The reference of the Matlab code "staining-normalization" of Mitko Veta, also torchstain's."""
        return cls((0.5626, 0.7201, 0.4062), (0.2159, 0.8012, 0.5581), (1.9705, 1.0308))

    @classmethod
    def constants(cls) -> dict[str, float]:
        """See the base class."""
        return {
            "white": WHITE,
            "beta": LEAST_DENSITY,
            "black": MOST_DENSITY,
            "alpha": _ALPHA,
            "strength": _STRENGTH_PERCENTILE,
        }

    @property
    def matrix(self) -> NDArray[np.float64]:
        """Stain vectors as columns, float64 (3, 2)."""
        return np.array([self.haematoxylin, self.eosin]).T

    def map_to(self, target: Self) -> ColourMap:
        """See the base class."""
        scale = np.array(target.strengths) / np.array(self.strengths)
        change = target.matrix @ np.diag(scale) @ np.linalg.pinv(self.matrix)
        # With u = ln(I + 1) and OD = ln 240 − u the change of density is a change of u.
        matrix = change.astype(np.float32)
        offset = ((np.eye(3) - change).sum(axis=1) * np.log(WHITE)).astype(np.float32)

        def colours(
            pixels: NDArray[np.uint8],
        ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
            # Plane by plane and not as one product of matrices, whose rounding depends on the number of rows.
            u = LOG_TABLE.take(pixels.T)
            planes = []
            for row, start in zip(matrix, offset, strict=True):
                plane = u[0] * row[0]
                plane += u[1] * row[1]
                plane += u[2] * row[2]
                plane += start
                np.exp(plane, out=plane)
                plane -= np.float32(1)
                planes.append(plane)
            return planes[0], planes[1], planes[2]

        return colours
