"""Labels, features and folds of a training, brought together and audited."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from wsi_ncmi.cohorts import (
    PARTS,
    SHARED_KINDS,
    BagSource,
    Cohort,
    Evidence,
    JoinedBags,
    Leak,
    MatchResult,
    PatientBags,
    Splits,
    Unmatched,
    evidence_of_source,
    find_leaks,
    make_splits,
    match_features,
    official_splits,
    open_bag_source,
    patient_cohort,
    patient_splits,
    read_any_splits,
    read_labels,
    slide_splits,
)
from wsi_ncmi.cohorts.folds import SplitConfig
from wsi_ncmi.cohorts.joined_bags import feature_origin
from wsi_ncmi.core.errors import InputError, counted
from wsi_ncmi.core.values import SUSPECT, suspects_between
from wsi_ncmi.metrics.confusion import class_ranks
from wsi_ncmi.slides import SlideIndex
from wsi_ncmi.training.config import TrainConfig

_LOG = logging.getLogger(__name__)

# Hashing features of other tools means reading them once more than the training does.
_MAX_BYTES_FOR_THE_AUDIT = 4 * 2**30


@dataclass(frozen=True)
class TrainingData:
    """Bags, labels and folds of a training.

    Attributes:
        source: The bags, of slides or of patients.
        cohort: Labels of the bags that are trained and tested on.
        splits: Folds over ``cohort``.
        of_slides: The same folds and cohort slide by slide; None where bags are slides.
        unmatched: Slides that can't be used, and why.
        warnings: Sentences that the report must show.
        hashes: Name → SHA-256 of what is trained on.
        origin: What made the features, stored with each model.
        evidence: What the leak audit can compare, slide by slide.
    """

    source: BagSource
    cohort: Cohort
    splits: Splits
    of_slides: tuple[Splits, Cohort] | None = None
    unmatched: tuple[Unmatched, ...] = ()
    warnings: tuple[str, ...] = ()
    hashes: Mapping[str, str] = field(default_factory=dict)
    origin: Mapping[str, Any] = field(default_factory=dict)
    evidence: Evidence = field(default_factory=Evidence)

    @property
    def slides(self) -> tuple[Splits, Cohort]:
        """Folds and cohort slide by slide."""
        return self.of_slides or (self.splits, self.cohort)

    @cached_property
    def leaks(self) -> tuple[Leak, ...]:
        """What the audit finds in the folds."""
        return tuple(find_leaks(*self.slides, evidence=self.evidence))


@dataclass(frozen=True)
class Folds:
    """The folds of a training.

    Attributes:
        cohort: Labels of the bags, those of slides or of patients.
        splits: Folds over them.
        of_slides: The same slide by slide; None where bags are slides.
        slides: Patient → slides; empty where bags are slides.
    """

    cohort: Cohort
    splits: Splits
    of_slides: tuple[Splits, Cohort] | None
    slides: Mapping[str, tuple[str, ...]]


def make_folds(config: TrainConfig, labelled: Cohort, cohort: Cohort, where: str = "with features") -> Folds:
    """Makes or reads the folds that a training is asked for.

    Args:
        config: How to split, or a splits file; that is one of slides, also where bags are patients.
        labelled: All labels; a splits file is one of them.
        cohort: Those of the slides that are there.
        where: Where that is, for messages.

    Raises:
        InputError: The splits file or ``order`` doesn't fit the labels, there are too few patients, or a part
            is empty.
    """
    alike: dict[str, str] = {}
    class_ranks(labelled.classes, config.order)  # an order of other classes is told before any work
    bags, slides = patient_cohort(cohort) if config.bag == "patient" else (cohort, {})
    if config.splits is not None:
        read = read_any_splits(config.splits, labelled)
        named = (slide_id for fold in read.folds for name in PARTS for slide_id in fold.part(name))
        alike = suspects_between(named, cohort.slide_ids)
        splits = read.restricted_to(cohort.slide_ids)
        held = counted(len(splits.folds), "fold")
        if config.split.folds in (len(splits.folds), SplitConfig().folds):
            _LOG.info("%s holds %s.", config.splits.name, held)
        else:
            _LOG.warning(
                "%s holds %s: split.folds (%d) has no effect.", config.splits.name, held, config.split.folds
            )
        splits = patient_splits(splits, cohort) if slides else splits
    else:
        splits = (official_splits if config.official_split else make_splits)(bags, config.split)
    for number, fold in enumerate(splits.folds):
        for name in PARTS:
            if not fold.part(name) and alike:
                other, own = next(iter(alike.items()))
                raise InputError(
                    f"Fold {number} of the splits file has no slide {where} in its {name} part: {other!r} "
                    f"there and {own!r} {SUSPECT}; write the slide ids in one way."
                )
            if not fold.part(name):
                why = (
                    "training chooses its epoch there. A fold gets a validation part where a class has three "
                    "patients outside its test part and the validation share isn't 0: add patients or folds"
                    if name == "validation"
                    else "there are too few patients or slides for this split; use fewer folds or another "
                    "validation share"
                )
                raise InputError(f"Fold {number} has no slide {where} in its {name} part: {why}.")
    return Folds(bags, splits, (slide_splits(splits, slides), cohort) if slides else None, slides)


def refuse_leaks(leaks: Sequence[Leak], *, allowed: bool) -> None:
    """Stops before any training when the audit has found what would falsify the result.

    Args:
        leaks: What it has found.
        allowed: Accept a patient, slide or image in two parts (not a part that can't be trained on).

    Raises:
        InputError: The first fatal finding.
    """
    fatal = [leak for leak in leaks if leak.fatal and not (allowed and leak.kind in SHARED_KINDS)]
    if fatal:
        more = f" (and {len(fatal) - 1} more)" if len(fatal) > 1 else ""
        remedy = " or pass --allow-leak" if fatal[0].kind in SHARED_KINDS else ""
        raise InputError(f"{fatal[0].detail.rstrip('.')}{more}; make the splits again{remedy}.")


def open_features(features: Path, further: Sequence[Path] = ()) -> BagSource:
    """Opens features, joined tile by tile with those of additional encoders.

    Args:
        features: As ``open_bag_source`` takes them.
        further: Features of the same tiles by other encoders, in the order of their columns.

    Raises:
        InputError: A path does not exist, as ``open_bag_source``, or the tiles aren't the same.
    """
    for path in (features, *further):
        if not path.exists():
            raise InputError(f"The features {path} do not exist; run 'wsi-ncmi extract' first.")
    first = open_bag_source(features)
    return JoinedBags([first, *map(open_bag_source, further)]) if further else first


def prepare_data(config: TrainConfig) -> TrainingData:
    """Reads labels, matches them with the features, makes or reads the folds, and audits them; logs warnings.

    Args:
        config: What to train on. A splits file is one of slides, also where bags are patients.

    Raises:
        InputError: Wrong input, or folds that leak; the message names file, value and remedy.
    """
    if config.features is None:
        raise InputError("No features were named; give --features FOLDER.")
    source = open_features(config.features, config.further_features)
    group = "slide_id" if config.split.group == "slide_id" else None
    if config.labels is None:
        labelled = source.embedded_cohort(group)
        if labelled is None:
            raise InputError(f"{config.features} carries no labels; give a table with --labels.")
    else:
        labelled = read_labels(config.labels, group=group)
    config = _for_level(config, source.level)
    if source.level == "patient":
        match, by_slide = _match_patients(labelled, source)
    else:
        match = match_features(labelled, source)
        by_slide = match.cohort
    for note in by_slide.notes:
        _LOG.warning("%s", note)
    # Joined encoders have seen the same tiles: what the first one's files say holds for all.
    slides_source = source.parts[0] if isinstance(source, JoinedBags) else source
    folds = make_folds(config, labelled, by_slide)
    if source.level == "patient":
        evidence = Evidence()  # a patient's vector is that of no slide
    else:
        evidence = evidence_of_source(
            slides_source, slide_ids=by_slide.slide_ids, most_bytes=_MAX_BYTES_FOR_THE_AUDIT
        )
        source = PatientBags(source, folds.slides) if folds.slides else source
    warnings = [*by_slide.notes, *(str(text) for text in folds.splits.meta.get("warnings", ()))]
    if labelled.case_id_assumed or group:
        warnings.insert(
            len(by_slide.notes),
            "Each slide was taken for a patient of its own (--group slide_id): if patients have several "
            "slides, training and test share patients and the results are too good.",
        )
    for warning in warnings[len(by_slide.notes) :]:
        _LOG.warning("%s", warning)
    data = TrainingData(
        source, folds.cohort, folds.splits, folds.of_slides, match.unmatched, tuple(warnings),
        _hashes(slides_source, match.cohort, evidence), feature_origin(source), evidence,
    )  # fmt: skip
    refuse_leaks(data.leaks, allowed=config.allow_leak)
    return data


def _for_level(config: TrainConfig, level: str) -> TrainConfig:
    """The training on rows of that level: patients' vectors are bags of patients.

    Raises:
        InputError: A setting is about the tiles of a bag, and there are none.
    """
    if level == "tile":
        return config
    one = config.bag == "slide" or level == "patient"
    what = f"the features hold one vector a {level}"
    if one and config.training.max_instances is not None:
        raise InputError(f"training.max_instances has no effect: {what}; leave it out.")
    if one and config.model.mixup:
        raise InputError(f"model.mixup mixes the tiles of a bag, and {what}; leave it out.")
    if one and not config.model.pools_evenly:
        _LOG.warning(
            "The attention of '%s' has nothing to choose from: %s; 'linear' and 'mlp' are made for them.",
            config.model.name, what,
        )  # fmt: skip
    if level == "patient" and config.bag == "slide":
        _LOG.info("The features are of patients: they are joined with the labels by case_id.")
        return replace(config, bag="patient", split=replace(config.split, group="case_id"))
    return config


def _match_patients(labelled: Cohort, source: BagSource) -> tuple[MatchResult, Cohort]:
    """Joins patients' vectors with labels by patient.

    Returns:
        What they have in common, patient by patient, and the labels of those patients slide by slide.

    Raises:
        InputError: As ``match_features`` and ``patient_cohort``.
    """
    # Where patients aren't known, the user has said that each id is a patient of its own.
    of_patients = patient_cohort(replace(labelled, case_id_assumed=False))[0]
    match = match_features(of_patients, source)
    index = SlideIndex(match.cohort.slide_ids)
    rows = [
        replace(row, case_id=spelled)
        for row in labelled.rows
        if (spelled := index.spelled(row.case_id)) in match.cohort.by_slide
    ]
    by_slide = replace(labelled, rows=tuple(rows), case_id_assumed=False)
    return match, replace(by_slide.restricted_to(by_slide.slide_ids), notes=match.cohort.notes)


def _hashes(source: BagSource, cohort: Cohort, evidence: Evidence) -> dict[str, str]:
    bags = hashlib.sha256()
    lengths: dict[str, Any] = dict(zip(source.slide_ids, source.lengths, strict=True))
    for slide_id in sorted(cohort.slide_ids):
        bags.update(f"{slide_id}:{int(lengths[slide_id])}\n".encode())
    hashes = {"labels": cohort.sha256, "bags (slide ids and tile counts)": bags.hexdigest()}
    if set(cohort.slide_ids) <= set(evidence.features):
        content = hashlib.sha256()
        for slide_id in sorted(cohort.slide_ids):
            content.update(f"{slide_id}:{evidence.features[slide_id]}\n".encode())
        hashes["features (slide ids and content)"] = content.hexdigest()
    return hashes
