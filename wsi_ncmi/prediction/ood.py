"""Out-of-distribution (OOD) detection: statistics of the training slides, and slides that lie outside.

Source: Tipping & Bishop, "Probabilistic Principal Component Analysis", J. R. Stat. Soc. B 61 (1999); as a
detector of out-of-distribution input, the Mahalanobis distance of Lee et al. 2018 (arXiv 1807.03888),
here without classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import parse_json

if TYPE_CHECKING:
    from wsi_ncmi.features import FeatureFile


@dataclass(frozen=True)
class OodFlag:
    """A finding of a slide out of the distribution of the training.

    Attributes:
        name: ``few_tiles``, ``resolution``, ``stain``, ``features`` or ``foreign_tiles``.
        words: Half a sentence with the number and the bound.
        score: The number as a multiple of the bound that it crosses, above 1.
    """

    name: str
    words: str
    score: float


@dataclass(frozen=True)
class SlideProperties:
    """Resolution and colour of a slide, compared besides its features.

    Attributes:
        mpp: µm per level-0 pixel; None where unknown.
        colour: Measures of the tissue's colour (see ``wsi_ncmi.features.tissue_colour``); empty where
            unknown.
    """

    mpp: float | None = None
    colour: Mapping[str, float] = field(default_factory=dict)


_EXPLAINED = 0.95
_FLOOR = 1e-6
_MAX_DOUBLE_VALUES = 5_000_000
_MIN_NOISE = 1e-3  # of a feature's own variance: float16 features and float32 sums are no more exact


def slide_properties(file: FeatureFile) -> SlideProperties:
    """Resolution and tissue colour of a slide, from its feature file."""
    mpp = file.attrs.get("mpp_level0")
    try:
        colour = dict(parse_json(str(file.attrs.get("tissue_found") or "{}"))).get("colour") or {}
    except (ValueError, TypeError):
        colour = {}
    return SlideProperties(
        mpp=float(mpp) if mpp else None, colour={str(name): float(value) for name, value in colour.items()}
    )


@dataclass(frozen=True, eq=False)  # arrays have no one truth value to compare by
class GaussianModel:
    """A Gaussian with a few long axes and the same spread along all others.

    Attributes:
        mean: float32 (D,).
        scale: float32 (D,), one over each feature's deviation (0 where it never varies).
        components: float32 (k, D), orthonormal axes of the scaled features.
        variances: float32 (k,), along them.
        noise: Variance along every other axis.
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    components: NDArray[np.float32]
    variances: NDArray[np.float32]
    noise: float

    @classmethod
    def fit(cls, rows: NDArray[np.floating], max_components: int) -> Self:
        """Fits rows (N, D), N at least 2.

        As many axes are kept as explain 95 % of the variance, at most ``max_components`` and a third of N:
        with fewer rows than that for each axis its variance is a chance find.
        """
        from sklearn.decomposition import PCA

        # A large cohort's tiles in double precision would take gigabytes, for nothing.
        x = np.asarray(rows, np.float64 if rows.size < _MAX_DOUBLE_VALUES else np.float32)
        mean, deviation = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
        scale = np.where(deviation > _FLOOR, 1.0 / np.maximum(deviation, _FLOOR), 0.0)
        z = (x - mean.astype(x.dtype)) * scale.astype(x.dtype)
        limit = max(1, min(max_components, len(x) // 3, x.shape[1]))
        pca = PCA(limit, svd_solver="randomized" if min(z.shape) > 4 * limit else "full", random_state=0).fit(
            z
        )
        total = float(z.var(axis=0, ddof=1, dtype=np.float64).sum())
        explained = np.cumsum(pca.explained_variance_)
        kept = min(limit, int(np.searchsorted(explained, _EXPLAINED * total)) + 1)
        used = int((scale > 0).sum())
        if used > kept:
            rest = (total - float(explained[kept - 1])) / (used - kept)
        else:  # every axis is kept, nothing lies beside them but rounding
            rest = float(pca.explained_variance_[kept - 1])
        return cls(
            mean.astype(np.float32),
            scale.astype(np.float32),
            np.ascontiguousarray(pca.components_[:kept], np.float32),
            pca.explained_variance_[:kept].astype(np.float32),
            float(np.float32(max(rest, _MIN_NOISE))),
        )

    def distances(self, rows: NDArray[np.floating]) -> NDArray[np.float64]:
        """Distance of each row (N, D): the root of the mean square deviation along all axes, (N,).

        About 1 for rows of the training; it depends on no unit.
        """
        z = (np.asarray(rows, np.float32) - self.mean) * self.scale
        along = z @ self.components.T
        inside = (along.astype(np.float64) ** 2 / np.maximum(self.variances, _FLOOR)).sum(axis=1)
        rest = np.maximum(
            (z.astype(np.float64) ** 2).sum(axis=1) - (along.astype(np.float64) ** 2).sum(axis=1), 0
        )
        used = max(1, int((self.scale > 0).sum()))
        distances: NDArray[np.float64] = np.sqrt((inside + rest / self.noise) / used)
        return distances

    def tensors(self, prefix: str) -> dict[str, NDArray[np.float32]]:
        """Its numbers by name; safetensors takes the bytes as they lie, so all are in row order."""
        return {
            f"{prefix}.mean": np.ascontiguousarray(self.mean),
            f"{prefix}.scale": np.ascontiguousarray(self.scale),
            f"{prefix}.components": np.ascontiguousarray(self.components),
            f"{prefix}.variances": np.ascontiguousarray(self.variances),
            f"{prefix}.noise": np.array([self.noise], np.float32),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[np.float32]], prefix: str) -> Self:
        """Reads what :meth:`tensors` gave.

        Raises:
            KeyError: A tensor is missing.
            ValueError: The shapes don't belong together, or a number isn't finite or isn't float32.
        """
        names = ("mean", "scale", "components", "variances", "noise")
        mean, scale, components, variances, noise = (tensors[f"{prefix}.{name}"] for name in names)
        for name in names:
            tensor = tensors[f"{prefix}.{name}"]
            if tensor.dtype != np.float32:
                raise ValueError(f"{prefix}.{name} is {tensor.dtype}, not float32")
            if not np.isfinite(tensor).all():
                raise ValueError(f"{prefix}.{name} holds numbers that aren't finite")
        if (
            mean.ndim != 1
            or not mean.size
            or mean.shape != scale.shape
            or variances.ndim != 1
            or components.shape != (len(variances), len(mean))
            or noise.shape != (1,)
        ):
            raise ValueError(f"the tensors of {prefix} have shapes that don't belong together")
        if noise[0] <= 0:
            raise ValueError(f"{prefix}.noise is {noise[0]:g}, not above 0")
        return cls(mean, scale, components, variances, float(noise[0]))


_MIN_TILES_SHARE = 0.5
_COLOUR_WORDS = {
    "density": "the stain's density",
    "cx": "the stain's hue (HSD cx)",
    "cy": "the stain's hue (HSD cy)",
}


@dataclass(frozen=True)
class Bounds:
    """Numbers that a slide like those of the training does not cross.

    Attributes:
        slides: Training slides that they come from.
        least_tiles: Tiles of the smallest slide; half of them are too few.
        mpp: Finest and coarsest level-0 resolution, µm per pixel, 5 % added on both sides; None = unknown.
        colour: Measure → lowest and highest, with a margin; empty where the training's is unknown.
        slide_distance: Distance of a slide's mean embedding that 1 % of held-out training slides exceed.
        tile_distance: The same for single tiles.
        foreign_share: Share of tiles beyond ``tile_distance`` that 1 % of held-out training slides exceed.
        score_quantiles: Scores of held-out training slides, from the least to the largest at even shares;
            drift is measured against them. Empty in bundles of earlier versions.
    """

    slides: int
    least_tiles: int
    mpp: tuple[float, float] | None
    colour: Mapping[str, tuple[float, float]]
    slide_distance: float
    tile_distance: float
    foreign_share: float
    score_quantiles: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)  # arrays have no one truth value to compare by
class OodDetector:
    """Statistics of the training slides, and the distance of a slide from them.

    Attributes:
        bounds: Limits that a slide is compared with.
        slide_model: Distribution of the mean embeddings of slides.
        tile_model: Distribution of the embeddings of tiles.
    """

    bounds: Bounds
    slide_model: GaussianModel
    tile_model: GaussianModel

    def score(self, features: NDArray[np.floating[Any]]) -> float:
        """How far a slide's mean embedding is, as a multiple of the bound (above 1 = flagged)."""
        mean = np.asarray(features, np.float32).mean(axis=0, keepdims=True)
        return float(self.slide_model.distances(mean)[0] / self.bounds.slide_distance)

    def flags(self, features: NDArray[np.floating[Any]], properties: SlideProperties) -> tuple[OodFlag, ...]:
        """Findings of a slide out of the training's distribution.

        Args:
            features: Tile embeddings (N, D), N at least 1.
            properties: Resolution and colour.

        Raises:
            InputError: Embeddings of another width.
        """
        if features.ndim != 2 or features.shape[1] != len(self.slide_model.mean):
            raise InputError(
                f"The statistics of the model take embeddings of width {len(self.slide_model.mean)}, got the "
                f"shape {tuple(features.shape)}; extract the slide with the model's encoder."
            )
        found = [*self._of_tiles(len(features)), *self._of_properties(properties)]
        score = self.score(features)
        if score > 1:
            found.append(
                OodFlag(
                    "features",
                    f"its mean embedding is {score:.2f} times as far as the bound of the training",
                    score,
                )
            )
        share = float((self.tile_model.distances(features) > self.bounds.tile_distance).mean())
        if share > self.bounds.foreign_share:
            words = (
                f"{share:.0%} of its tiles are unlike training tiles (bound {self.bounds.foreign_share:.0%})"
            )
            found.append(OodFlag("foreign_tiles", words, share / self.bounds.foreign_share))
        return tuple(found)

    def _of_tiles(self, count: int) -> list[OodFlag]:
        fewest = self.bounds.least_tiles
        least = _MIN_TILES_SHARE * fewest
        if count >= least:
            return []
        words = f"{count} tiles, the smallest training slide has {fewest}"
        return [OodFlag("few_tiles", words, least / count)]

    def _of_properties(self, properties: SlideProperties) -> list[OodFlag]:
        found = []
        if properties.mpp is not None and self.bounds.mpp is not None:
            low, high = self.bounds.mpp
            if not low <= properties.mpp <= high:
                words = f"{properties.mpp:g} µm per pixel, the training had {low:.3g} to {high:.3g}"
                found.append(OodFlag("resolution", words, max(low / properties.mpp, properties.mpp / high)))
        for name, (low, high) in self.bounds.colour.items():
            value = properties.colour.get(name)
            if value is not None and not low <= value <= high:
                beyond = max(low - value, value - high) / max(high - low, 1e-9)
                words = (
                    f"{_COLOUR_WORDS.get(name, name)} is {value:.3f}, the training's {low:.3f} to {high:.3f}"
                )
                found.append(OodFlag("stain", words, 1 + beyond))
        return found

    def to_json(self) -> dict[str, Any]:
        """The bounds, JSON-ready; the arrays are :meth:`tensors`."""
        bounds = asdict(self.bounds)
        if not self.bounds.score_quantiles:  # the digest of an earlier bundle stays
            del bounds["score_quantiles"]
        return bounds

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """The arrays by name."""
        return {**self.slide_model.tensors("slide"), **self.tile_model.tensors("tile")}

    @classmethod
    def load(cls, bounds: Mapping[str, Any], tensors: Mapping[str, NDArray[np.float32]], where: str) -> Self:
        """Reads what :meth:`to_json` and :meth:`tensors` gave.

        Raises:
            InputError: Something is missing or impossible.
        """
        try:
            mpp = bounds["mpp"]
            return cls(
                Bounds(
                    slides=int(bounds["slides"]),
                    least_tiles=int(bounds["least_tiles"]),
                    mpp=None if mpp is None else (float(mpp[0]), float(mpp[1])),
                    colour={str(k): (float(v[0]), float(v[1])) for k, v in dict(bounds["colour"]).items()},
                    slide_distance=float(bounds["slide_distance"]),
                    tile_distance=float(bounds["tile_distance"]),
                    foreign_share=float(bounds["foreign_share"]),
                    score_quantiles=tuple(map(float, bounds.get("score_quantiles", ()))),
                ),
                GaussianModel.from_tensors(tensors, "slide"),
                GaussianModel.from_tensors(tensors, "tile"),
            )
        except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
            raise InputError(
                f"The training statistics of {where} can't be read ({error}); export the model again."
            ) from error
