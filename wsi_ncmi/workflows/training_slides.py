"""The training slides of a run once more: their features, for the statistics that a bundle carries."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from wsi_ncmi.cohorts import BagSource, open_bag_source
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.progress import ProgressReporter
from wsi_ncmi.encoders import encoder_folder_name
from wsi_ncmi.features import FeatureFile, open_features_file
from wsi_ncmi.prediction import Ensemble, check_features
from wsi_ncmi.prediction.reference import SlideMetadata, SlideSample
from wsi_ncmi.prediction.reference.fitting import sample_slide, tiles_a_slide

__all__ = ["facts_of", "find_features", "samples_of", "training_features"]


def facts_of(file: FeatureFile) -> SlideMetadata:
    """Resolution and tissue colour of a slide as its feature file tells them."""
    mpp = file.attrs.get("mpp_level0")
    try:
        colour = dict(json.loads(str(file.attrs.get("tissue_found") or "{}"))).get("colour") or {}
    except (ValueError, TypeError):
        colour = {}
    return SlideMetadata(
        mpp=float(mpp) if mpp else None, colour={str(name): float(value) for name, value in colour.items()}
    )


def find_features(run: Path, features: Path | None, ensemble: Ensemble) -> Path:
    """The features that a run was trained on: those given, or those beside the run folder.

    Args:
        run: Run folder.
        features: What the user gave.
        ensemble: The run's models.

    Raises:
        InputError: None given and none beside the run.
    """
    if features is not None:
        return features
    encoder = str(ensemble.features.get("encoder") or "")
    above = run.resolve().parents
    for folder in (parent / "features" / encoder_folder_name(encoder) for parent in above[:3] if encoder):
        if folder.is_dir():
            return folder
    raise InputError(
        f"The features that {run} was trained on are not beside it; give them with --features (the "
        f"bundle gets "
        "their statistics, for telling slides unlike them), or pass --without-reference."
    )


def samples_of(
    source: BagSource, patients: Mapping[str, str], ensemble: Ensemble, progress: ProgressReporter
) -> Iterator[SlideSample]:
    """What the reference is fitted on, slide by slide.

    Args:
        source: The features.
        patients: Slide id → patient of the run's slides.
        ensemble: The run's models.
        progress: Told about every slide.

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
                facts = SlideMetadata()
                if identity:
                    facts = facts_of(open_features_file(source.path / f"{slide_id}.h5"))
                yield sample_slide(patient, source.load(slide_id), facts, tiles_a_slide(len(patients)))
            task.advance(1, slide_id)


def training_features(run: Path, features: Path | None, ensemble: Ensemble) -> BagSource:
    """Opens what :func:`find_features` finds."""
    return open_bag_source(find_features(run, features, ensemble))
