"""Stain normalisation by Macenko's and Reinhard's methods."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.files import parse_json
from wsi_ncmi.features.stain.density import (
    LOG_TABLE,
    MAX_DENSITY,
    MIN_DENSITY,
    WHITE,
    StainFitError,
    is_tissue,
    tissue_densities,
)

ColourMap = Callable[
    [NDArray[np.uint8]], tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]
]
"""uint8 (P, 3) in RGB to three new planes float32 (P,), unrounded and not yet cut to 0 … 255."""


@dataclass(frozen=True)
class StainModel(ABC):
    """The stain of one image or slide, as one method measures it; small, picklable, comparable."""

    method: ClassVar[str]

    @classmethod
    @abstractmethod
    def fit(cls, pixels: NDArray[np.uint8]) -> Self:
        """Measures pixels, uint8 (P, 3).

        Raises:
            StainFitError: They don't show what the method needs.
        """

    @classmethod
    @abstractmethod
    def builtin(cls) -> Self:
        """The method's published target."""

    @classmethod
    @abstractmethod
    def constants(cls) -> dict[str, float]:
        """The numbers of the method that change results, for the identity of files."""

    @abstractmethod
    def map_to(self, target: Self) -> ColourMap:
        """The change of colours that gives an image of this stain the target's."""

    @property
    def text(self) -> str:
        """Canonical JSON of the method and the numbers; equal models have equal texts."""
        return json.dumps({"method": self.method, **asdict(self)}, sort_keys=True, separators=(",", ":"))


# Planes of one part stay in the processor's cache.
_PART = 1 << 15


class StainNormaliser:
    """Gives pixels of one stain the colours of another.

    A pixel's new colour depends on its own alone: batches and their order change nothing.

    Args:
        source: Stain of the slide that the pixels come from.
        target: Stain that they are to have.

    Raises:
        ValueError: The two are of different methods.

    Example:
        >>> import numpy as np
        >>> target = MacenkoModel.builtin()
        >>> StainNormaliser(target, target).apply(np.full((1, 1, 1, 3), 239, np.uint8)).ravel()
        array([239, 239, 239], dtype=uint8)
    """

    def __init__(self, source: StainModel, target: StainModel) -> None:
        if type(source) is not type(target):
            raise ValueError(
                f"a stain measured by {source.method} can't be changed to one by {target.method}"
            )
        self.source, self.target = source, target
        self._colours = source.map_to(target)

    def __reduce__(self) -> tuple[type[StainNormaliser], tuple[StainModel, StainModel]]:
        return StainNormaliser, (self.source, self.target)

    @property
    def identity(self) -> str:
        """Canonical JSON of both stains."""
        pair = {"source": parse_json(self.source.text), "target": parse_json(self.target.text)}
        return json.dumps(pair, sort_keys=True, separators=(",", ":"))

    def apply(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Changes colours; computed in float32, rounded to the nearest grey level, cut to 0 … 255.

        Args:
            pixels: uint8 (…, 3) in RGB, such as tiles (n, h, w, 3).

        Returns:
            uint8 of the same shape, a new array.

        Raises:
            ValueError: Another type or no three channels.
        """
        if pixels.dtype != np.uint8 or pixels.ndim < 2 or pixels.shape[-1] != 3:
            raise ValueError(f"pixels must be uint8 (…, 3), not {pixels.dtype} {pixels.shape}")
        flat = pixels.reshape(-1, 3)
        out = np.empty(flat.shape, np.uint8)
        for start in range(0, len(flat), _PART):
            part = slice(start, start + _PART)
            for channel, plane in enumerate(self._colours(flat[part])):
                np.clip(plane, 0, 255, out=plane)
                np.rint(plane, out=plane)
                out[part, channel] = plane
        return out.reshape(pixels.shape)


_ALPHA = 1.0
_STRENGTH_PERCENTILE = 99.0
_MIN_ANGLE_DEG = 5.0
_MIN_STRENGTH = 0.1
_REMEDY = "extract with --stain reinhard, or without stain normalisation"
_Rgb = tuple[float, float, float]


@dataclass(frozen=True)
class MacenkoModel(StainModel):
    """Stain vectors from the extreme angles in the plane of optical densities, and their strengths.

    Densities are projected on the plane of their two largest singular vectors (through the origin, as in the
    paper); the 1st and 99th percentile of the angle give the two stain vectors, the 99th percentile of each
    concentration its strength. Angles are taken of pixels that are dense in every channel, for the others are
    noise (they shift an eosin that lets red light through by some degrees). It is the published rule, and its
    limit: an eosin that absorbs less red than a sixth of its density has no such pixels of its own and is
    found up to 8° nearer to haematoxylin. Strengths are of all tissue, so that the share of glass doesn't
    matter. A colour is changed by exchanging vectors and scaling strengths:
    ``OD' = S_target · diag(max_target / max_source) · S_source⁺ · OD``.

    Source: Macenko et al., "A method for normalizing histology slides for quantitative analysis", ISBI 2009.

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
        if np.degrees(angles[1] - angles[0]) < _MIN_ANGLE_DEG:
            raise StainFitError(
                "The stain can't be measured: the tissue shows a single colour, haematoxylin and eosin can't "
                f"be told apart; {_REMEDY}."
            )
        extremes = (plane @ np.array([np.cos(angles), np.sin(angles)])).T
        # Haematoxylin is blue: it absorbs more red light than eosin does.
        stains = extremes[np.argsort(-extremes[:, 0])]
        strengths = np.percentile(tissue @ np.linalg.pinv(stains), _STRENGTH_PERCENTILE, axis=0)
        if (strengths < _MIN_STRENGTH).any():
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
            "beta": MIN_DENSITY,
            "black": MAX_DENSITY,
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


# Reinhard et al. 2001, eq. 4 (RGB to LMS) and eq. 6 (logarithms of LMS to lαβ).
_TO_LMS = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
_TO_LAB = np.diag([3**-0.5, 6**-0.5, 2**-0.5]) @ np.array([[1.0, 1, 1], [1, 1, -2], [1, -1, 0]])
_MIN_SPREAD = (0.02, 0.002, 0.001)
_Lab = tuple[float, float, float]


@dataclass(frozen=True)
class ReinhardModel(StainModel):
    """Mean and standard deviation of tissue on each axis of lαβ.

    RGB is changed to cone responses LMS and their logarithms to the decorrelated axes lαβ (Ruderman, Cronin &
    Chiao 1998); each axis is shifted and scaled to the target's, then changed back to RGB. Statistics are
    taken of tissue alone, so that the share of glass doesn't matter. Natural logarithms of intensities from 1
    to 255 are used, as in HistomicsTK, whose target is the default.

    Source: Reinhard et al., "Color transfer between images", IEEE CG&A 21 (2001).

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
        if (spread < _MIN_SPREAD).any():
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
        return {"white": WHITE, "beta": MIN_DENSITY, "black": MAX_DENSITY}

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
