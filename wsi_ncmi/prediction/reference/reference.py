"""Bounds of the training slides, and where a new slide lies outside of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.prediction.reference.flags import Flag, SlideMetadata
from wsi_ncmi.prediction.reference.gaussian import GaussianModel

__all__ = ["Bounds", "Reference"]

_LEAST_PART = 0.5
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
    """

    slides: int
    least_tiles: int
    mpp: tuple[float, float] | None
    colour: Mapping[str, tuple[float, float]]
    slide_distance: float
    tile_distance: float
    foreign_share: float


@dataclass(frozen=True, eq=False)  # arrays have no one truth value to compare by
class Reference:
    """Statistics of the training slides.

    Attributes:
        bounds: What a slide is held against.
        slide_model: Where the mean embeddings of slides lie.
        tile_model: Where tiles lie.
    """

    bounds: Bounds
    slide_model: GaussianModel
    tile_model: GaussianModel

    def score(self, features: NDArray[np.floating[Any]]) -> float:
        """How far a slide's mean embedding is, as a multiple of the bound (above 1 = flagged)."""
        mean = np.asarray(features, np.float32).mean(axis=0, keepdims=True)
        return float(self.slide_model.distances(mean)[0] / self.bounds.slide_distance)

    def flags(self, features: NDArray[np.floating[Any]], facts: SlideMetadata) -> tuple[Flag, ...]:
        """What of a slide is unlike the training.

        Args:
            features: Tile embeddings (N, D), N at least 1.
            facts: Resolution and colour.

        Raises:
            InputError: Embeddings of another width.
        """
        if features.ndim != 2 or features.shape[1] != len(self.slide_model.mean):
            raise InputError(
                f"The reference of the model takes embeddings of width {len(self.slide_model.mean)}, got the "
                f"shape {tuple(features.shape)}; extract the slide with the model's encoder."
            )
        found = [*self._of_tiles(len(features)), *self._of_facts(facts)]
        score = self.score(features)
        if score > 1:
            found.append(
                Flag(
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
            found.append(Flag("foreign_tiles", words, share / self.bounds.foreign_share))
        return tuple(found)

    def _of_tiles(self, count: int) -> list[Flag]:
        fewest = self.bounds.least_tiles
        least = _LEAST_PART * fewest
        if count >= least:
            return []
        words = f"{count} tiles, the smallest training slide has {fewest}"
        return [Flag("few_tiles", words, least / count)]

    def _of_facts(self, facts: SlideMetadata) -> list[Flag]:
        found = []
        if facts.mpp is not None and self.bounds.mpp is not None:
            low, high = self.bounds.mpp
            if not low <= facts.mpp <= high:
                words = f"{facts.mpp:g} µm per pixel, the training had {low:.3g} to {high:.3g}"
                found.append(Flag("resolution", words, max(low / facts.mpp, facts.mpp / high)))
        for name, (low, high) in self.bounds.colour.items():
            value = facts.colour.get(name)
            if value is not None and not low <= value <= high:
                beyond = max(low - value, value - high) / max(high - low, 1e-9)
                words = (
                    f"{_COLOUR_WORDS.get(name, name)} is {value:.3f}, the training's {low:.3f} to {high:.3f}"
                )
                found.append(Flag("stain", words, 1 + beyond))
        return found

    def to_json(self) -> dict[str, Any]:
        """The bounds, JSON-ready; the arrays are :meth:`tensors`."""
        return asdict(self.bounds)

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
                ),
                GaussianModel.from_tensors(tensors, "slide"),
                GaussianModel.from_tensors(tensors, "tile"),
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise InputError(
                f"The training statistics of {where} can't be read ({error}); export the model again."
            ) from error
