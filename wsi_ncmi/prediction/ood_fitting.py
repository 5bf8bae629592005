"""Fitting the OOD statistics on the training slides of a run."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.cohorts import BagSource
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.progress import ProgressReporter
from wsi_ncmi.core.provenance import read_record
from wsi_ncmi.encoders import encoder_folder_name
from wsi_ncmi.features import open_features_file
from wsi_ncmi.prediction import Ensemble, check_features
from wsi_ncmi.prediction.ood import Bounds, GaussianModel, OodDetector, SlideProperties, slide_properties
from wsi_ncmi.training import RUN_JSON

_PARTS = 5
_EXCEEDED_BY = 0.01
_MAX_TILES_A_SLIDE, _MIN_TILES_A_SLIDE = 256, 8
_MAX_TILES = 20_000
_SLIDE_AXES, _TILE_AXES = 32, 64
_MIN_SLIDES = 10
_MPP_MARGIN = 1.05
_COLOUR_MARGIN = 0.25
_MIN_FOREIGN_SHARE = 0.05
_QUANTILES = 51


@dataclass(frozen=True, eq=False)  # arrays have no one truth value to compare by
class SlideSample:
    """A training slide while the statistics are fitted; nothing of it enters the bundle.

    Attributes:
        patient: Its patient: held out together.
        mean: Mean embedding, float32 (D,).
        tiles: Some of its embeddings, float16 (n, D).
        count: All its tiles.
        properties: Resolution and colour.
    """

    patient: str
    mean: NDArray[np.float32]
    tiles: NDArray[np.float16]
    count: int
    properties: SlideProperties


def tiles_a_slide(slides: int) -> int:
    """Tiles that are kept of each slide, so that those of any cohort fit into memory."""
    return int(np.clip(_MAX_TILES // max(slides, 1), _MIN_TILES_A_SLIDE, _MAX_TILES_A_SLIDE))


def sample_slide(
    patient: str, features: NDArray[np.float16], properties: SlideProperties, max_tiles: int = 256
) -> SlideSample:
    """Samples a slide; the same tiles every time.

    Args:
        patient: Its patient.
        features: Embeddings (N, D), N at least 1.
        properties: Resolution and colour.
        max_tiles: Tiles to keep, evenly spread (:func:`tiles_a_slide`).
    """
    count = min(len(features), max_tiles)
    rows = np.unique(np.linspace(0, len(features) - 1, count).round().astype(int))
    mean = np.asarray(features, np.float32).mean(axis=0)
    return SlideSample(patient, mean, np.asarray(features[rows], np.float16), len(features), properties)


def fit_ood_detector(slides: Iterable[SlideSample]) -> OodDetector:
    """Fits the distributions of training slides and tiles, and the bounds.

    Patients are parted in five (fewer where there are fewer); the distances of each part are measured with
    statistics of the others, and the bound is what 1 % of them exceed. Under 100 slides that is the largest.

    Args:
        slides: All training slides with tiles.

    Raises:
        InputError: Fewer than 10 slides, or one patient.
    """
    samples = list(slides)
    patients = sorted({sample.patient for sample in samples})
    if len(samples) < _MIN_SLIDES or len(patients) < 2:
        raise InputError(
            f"Statistics of the training need {_MIN_SLIDES} slides of 2 patients at least, there are "
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
    return OodDetector(
        Bounds(
            slides=len(samples),
            least_tiles=min(sample.count for sample in samples),
            mpp=_mpp_range(samples),
            colour=_colour_ranges(samples),
            slide_distance=_bound(slide_distances),
            tile_distance=tile_bound,
            foreign_share=max(_MIN_FOREIGN_SHARE, _bound(foreign)),
            score_quantiles=_quantiles(slide_distances / _bound(slide_distances)),
        ),
        GaussianModel.fit(means, _SLIDE_AXES),
        GaussianModel.fit(np.concatenate(tiles), _TILE_AXES),
    )


def _bound(values: NDArray[np.float64]) -> float:
    return float(np.quantile(values, 1 - _EXCEEDED_BY, method="higher"))


def _quantiles(scores: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(np.quantile(scores, np.linspace(0, 1, _QUANTILES)).round(4).tolist())


def _thinned(tiles: NDArray[np.float16], share: int) -> NDArray[np.float16]:
    return tiles[:: -(-len(tiles) // share)]


def _shuffled(patients: Sequence[str]) -> list[str]:
    # Neighbours in a list often come from one centre; a part should not be one.
    return [patients[i] for i in np.random.default_rng(0).permutation(len(patients))]


def _mpp_range(samples: Sequence[SlideSample]) -> tuple[float, float] | None:
    known = [sample.properties.mpp for sample in samples if sample.properties.mpp]
    if not known:
        return None
    return round(min(known) / _MPP_MARGIN, 6), round(max(known) * _MPP_MARGIN, 6)


def _colour_ranges(samples: Sequence[SlideSample]) -> dict[str, tuple[float, float]]:
    names = sorted({name for sample in samples for name in sample.properties.colour})
    ranges = {}
    for name in names:
        values = np.array([s.properties.colour[name] for s in samples if name in s.properties.colour])
        margin = _COLOUR_MARGIN * float(values.max() - values.min()) + 0.02
        ranges[name] = (round(float(values.min()) - margin, 4), round(float(values.max()) + margin, 4))
    return ranges


def find_features(run: Path, features: Path | None, ensemble: Ensemble) -> Path:
    """Finds the features that a run was trained on: those given, remembered by the run, or beside it.

    A remembered path is tried from the run folder, from the working directory and from the folders above the
    run: one of the two may have been moved since.

    Args:
        run: Run folder.
        features: From the user; None looks for them.
        ensemble: The run's models.

    Raises:
        InputError: None given and none found.
    """
    if features is not None:
        return features
    here = Path(os.path.normpath(run.absolute()))
    folders = [here, *here.parents]
    trained = next((folder for folder in folders[:4] if (folder / "metrics.json").is_file()), folders[0])
    record = read_record(trained / RUN_JSON)
    typed = str((record.get("config") or {}).get("features") or "")
    encoder = str(ensemble.features.get("encoder") or "")
    places = [trained / way] if (way := record.get("features_from_here")) else []
    if typed and not typed.startswith("…/"):  # an absolute path is cut to its last part
        places += [folder / typed for folder in (Path(), *folders[:4])]
    if encoder:
        places += [folder / "features" / encoder_folder_name(encoder) for folder in folders[1:4]]
    for place in places:
        if place.exists():
            return Path(os.path.normpath(place))
    told = f" ({typed})" if typed else ""
    raise InputError(
        f"The features that {run} was trained on{told} are neither where they were nor beside it; give them "
        "with --features (the bundle gets their statistics, to flag out-of-distribution slides), or pass "
        "--without-reference."
    )


def training_samples(
    source: BagSource, patients: Mapping[str, str], ensemble: Ensemble, progress: ProgressReporter
) -> Iterator[SlideSample]:
    """Samples the training slides, one after the other.

    Args:
        source: The features.
        patients: Slide id → patient of the run's slides.
        ensemble: The run's models.
        progress: Shows every slide.

    Raises:
        InputError: The features lack slides of the run, or are of another encoder or grid.
    """
    lengths = dict(zip(source.slide_ids, source.lengths, strict=True))
    if missing := sorted(set(patients) - set(lengths)):
        raise InputError(
            f"{source.path} lacks {len(missing)} slides that the run was trained on (the first: "
            f"{missing[0]!r}); "
            "give the features of the training with --features."
        )
    identity: dict[str, Any] = dict(getattr(source, "identity", {}))
    if identity:
        check_features(ensemble, identity)
    with progress.task("training statistics", len(patients), "slides") as task:
        for slide_id, patient in sorted(patients.items()):
            if lengths[slide_id] > 0:
                properties = SlideProperties()
                if identity:
                    properties = slide_properties(open_features_file(source.path / f"{slide_id}.h5"))
                yield sample_slide(patient, source.load(slide_id), properties, tiles_a_slide(len(patients)))
            task.advance(1, slide_id)
