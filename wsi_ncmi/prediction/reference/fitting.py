"""Fitting the reference: every bound is taken from slides that the statistics at hand had not seen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.prediction.reference.flags import SlideMetadata
from wsi_ncmi.prediction.reference.gaussian import GaussianModel
from wsi_ncmi.prediction.reference.reference import Bounds, Reference

__all__ = ["SlideSample", "fit_reference", "sample_slide", "tiles_a_slide"]

_PARTS = 5
_EXCEEDED_BY = 0.01
_TILES_OF_SLIDE, _LEAST_TILES = 256, 8
_MOST_TILES = 20_000
_SLIDE_AXES, _TILE_AXES = 32, 64
_LEAST_SLIDES = 10
_MPP_MARGIN = 1.05
_COLOUR_MARGIN = 0.25
_LEAST_FOREIGN = 0.05


@dataclass(frozen=True, eq=False)  # arrays have no one truth value to compare by
class SlideSample:
    """What is kept of a training slide while the reference is fitted; nothing of it enters the bundle.

    Attributes:
        patient: Its patient: held out together.
        mean: Mean embedding, float32 (D,).
        tiles: Some of its embeddings, float16 (n, D).
        count: All its tiles.
        facts: Resolution and colour.
    """

    patient: str
    mean: NDArray[np.float32]
    tiles: NDArray[np.float16]
    count: int
    facts: SlideMetadata


def tiles_a_slide(slides: int) -> int:
    """How many tiles of each slide are kept, so that all of them fit into memory whatever the cohort."""
    return int(np.clip(_MOST_TILES // max(slides, 1), _LEAST_TILES, _TILES_OF_SLIDE))


def sample_slide(
    patient: str, features: NDArray[np.float16], facts: SlideMetadata, most_tiles: int = 256
) -> SlideSample:
    """Takes what the reference needs of a slide; the same every time.

    Args:
        patient: Its patient.
        features: Embeddings (N, D), N at least 1.
        facts: Resolution and colour.
        most_tiles: Tiles to keep, evenly spread (:func:`tiles_a_slide`).
    """
    count = min(len(features), most_tiles)
    rows = np.unique(np.linspace(0, len(features) - 1, count).round().astype(int))
    mean = np.asarray(features, np.float32).mean(axis=0)
    return SlideSample(patient, mean, np.asarray(features[rows], np.float16), len(features), facts)


def fit_reference(slides: Iterable[SlideSample]) -> Reference:
    """Fits where training slides and tiles lie, and the bounds.

    Patients are parted in five (fewer where there are fewer); the distances of each part are measured with
    statistics of the others, and the bound is what 1 % of them exceed. Under 100 slides that is the largest.

    Args:
        slides: All training slides with tiles.

    Raises:
        InputError: Fewer than 10 slides, or one patient.
    """
    samples = list(slides)
    patients = sorted({sample.patient for sample in samples})
    if len(samples) < _LEAST_SLIDES or len(patients) < 2:
        raise InputError(
            f"Statistics of the training need {_LEAST_SLIDES} slides of 2 patients at least, there are "
            f"{len(samples)} of {len(patients)}; export with --without-reference."
        )
    share = tiles_a_slide(len(samples))
    means = np.stack([sample.mean for sample in samples])
    tiles = [_thinned(sample.tiles, share) for sample in samples]
    part_of = {patient: i % _PARTS for i, patient in enumerate(_shuffled(patients))}
    parts = np.array([part_of[sample.patient] for sample in samples])
    slide_distances = np.empty(len(samples))
    tile_distances: list[NDArray[np.float64]] = [np.empty(0)] * len(samples)
    for part in sorted(set(parts.tolist())):
        inside, held_out = np.flatnonzero(parts != part), np.flatnonzero(parts == part)
        slide_model = GaussianModel.fit(means[inside], _SLIDE_AXES)
        tile_model = GaussianModel.fit(np.concatenate([tiles[i] for i in inside]), _TILE_AXES)
        slide_distances[held_out] = slide_model.distances(means[held_out])
        for i in held_out:
            tile_distances[i] = tile_model.distances(tiles[i])
    tile_bound = _bound(np.concatenate(tile_distances))
    foreign = np.array([(distances > tile_bound).mean() for distances in tile_distances])
    return Reference(
        Bounds(
            slides=len(samples),
            least_tiles=min(sample.count for sample in samples),
            mpp=_mpp_range(samples),
            colour=_colour_ranges(samples),
            slide_distance=_bound(slide_distances),
            tile_distance=tile_bound,
            foreign_share=max(_LEAST_FOREIGN, _bound(foreign)),
        ),
        GaussianModel.fit(means, _SLIDE_AXES),
        GaussianModel.fit(np.concatenate(tiles), _TILE_AXES),
    )


def _bound(values: NDArray[np.float64]) -> float:
    return float(np.quantile(values, 1 - _EXCEEDED_BY, method="higher"))


def _thinned(tiles: NDArray[np.float16], share: int) -> NDArray[np.float16]:
    return tiles[:: -(-len(tiles) // share)]


def _shuffled(patients: Sequence[str]) -> list[str]:
    # Neighbours in a list often come from one centre; a part should not be one.
    return [patients[i] for i in np.random.default_rng(0).permutation(len(patients))]


def _mpp_range(samples: Sequence[SlideSample]) -> tuple[float, float] | None:
    known = [sample.facts.mpp for sample in samples if sample.facts.mpp]
    if not known:
        return None
    return round(min(known) / _MPP_MARGIN, 6), round(max(known) * _MPP_MARGIN, 6)


def _colour_ranges(samples: Sequence[SlideSample]) -> dict[str, tuple[float, float]]:
    names = sorted({name for sample in samples for name in sample.facts.colour})
    ranges = {}
    for name in names:
        values = np.array([s.facts.colour[name] for s in samples if name in s.facts.colour])
        margin = _COLOUR_MARGIN * float(values.max() - values.min()) + 0.02
        ranges[name] = (round(float(values.min()) - margin, 4), round(float(values.max()) + margin, 4))
    return ranges
