"""How far vectors lie from those of the training: the distance of probabilistic principal components.

Source: Tipping & Bishop, "Probabilistic Principal Component Analysis", J. R. Stat. Soc. B 61 (1999); as a
detector of what a network was not trained on, the Mahalanobis distance of Lee et al. 2018 (arXiv 1807.03888),
here without classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["GaussianModel"]

_EXPLAINED = 0.95
_FLOOR = 1e-6
_LARGE = 5_000_000
_LEAST_NOISE = 1e-3  # of a feature's own variance: float16 features and float32 sums are no more exact


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
    def fit(cls, rows: NDArray[np.floating], most_components: int) -> Self:
        """Fits rows (N, D), N at least 2.

        As many axes are kept as explain 95 % of the variance, at most ``most_components`` and a third of N:
        with fewer rows than that for each axis its variance is a chance find.
        """
        from sklearn.decomposition import PCA

        # A large cohort's tiles in double precision would take gigabytes, for nothing.
        x = np.asarray(rows, np.float64 if rows.size < _LARGE else np.float32)
        mean, deviation = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
        scale = np.where(deviation > _FLOOR, 1.0 / np.maximum(deviation, _FLOOR), 0.0)
        z = (x - mean.astype(x.dtype)) * scale.astype(x.dtype)
        limit = max(1, min(most_components, len(x) // 3, x.shape[1]))
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
            float(np.float32(max(rest, _LEAST_NOISE))),
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
            ValueError: The shapes don't belong together.
        """
        mean, scale, components, variances, noise = (
            tensors[f"{prefix}.{name}"] for name in ("mean", "scale", "components", "variances", "noise")
        )
        if (
            mean.shape != scale.shape
            or components.shape != (len(variances), len(mean))
            or noise.shape != (1,)
        ):
            raise ValueError(f"the tensors of {prefix} have shapes that don't belong together")
        return cls(mean, scale, components, variances, float(noise[0]))
