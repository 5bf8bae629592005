"""Bringing labels, features and folds together for the jobs that train."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from wsi_ncmi.cohorts import (
    PARTS,
    BagSource,
    Cohort,
    Evidence,
    JoinedBags,
    Leak,
    MatchResult,
    PatientBags,
    SplitConfig,
    Splits,
    evidence_of_source,
    find_leaks,
    make_splits,
    match_features,
    official_splits,
    patient_cohort,
    patient_splits,
    read_any_splits,
    read_labels,
    slide_splits,
)
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.workflows.bag_choice import open_features

__all__ = ["CohortData", "compared_slides", "load_cohort", "prepare_cohort"]

# Hashing features of other tools means reading them once more than the training does.
_MOST_BYTES_FOR_THE_AUDIT = 4 * 2**30


@dataclass(frozen=True)
class CohortData:
    """Everything a training needs to know.

    Attributes:
        source: The bags, of slides or of patients.
        labelled: All labelled slides.
        match: Which of them have features; ``match.cohort`` is what is trained and tested on (patients where
            bags are those of patients).
        splits: Folds over ``match.cohort``.
        of_slides: The same folds and cohort slide by slide, which is the same where bags are slides.
        warnings: Sentences that the report must show.
        hashes: Name → SHA-256 of what was trained on.
        evidence: What the leak audit can compare, slide by slide.
    """

    source: BagSource
    labelled: Cohort
    match: MatchResult
    splits: Splits
    of_slides: tuple[Splits, Cohort]
    warnings: tuple[str, ...]
    hashes: Mapping[str, str]
    evidence: Evidence = field(default_factory=Evidence)

    @cached_property
    def leaks(self) -> tuple[Leak, ...]:
        """What the audit finds in the splits."""
        return tuple(find_leaks(*self.of_slides, evidence=self.evidence))

    @property
    def compared(self) -> Mapping[str, int]:
        """What the audit compared → of how many slides it was known."""
        return compared_slides(*self.of_slides, self.evidence)

    @property
    def cohort(self) -> Cohort:
        """The usable slides."""
        return self.match.cohort


def load_cohort(
    features: Path, labels: str | None, group: str | None, further: Sequence[Path] = ()
) -> tuple[BagSource, Cohort]:
    """Opens features, joined where further ones are named, and reads labels.

    Without a table the labels are those inside a packed file.

    Raises:
        InputError: Wrong input, no labels at all, or no patient ids without ``group="slide_id"``.
    """
    source = open_features(features, further)
    cohort = source.embedded_cohort(group) if labels is None else read_labels(labels, group=group)
    if cohort is None:
        raise InputError(f"{features} carries no labels; give a table with --labels.")
    return source, cohort


def prepare_cohort(
    features: Path,
    labels: str | None,
    *,
    split: SplitConfig,
    splits_file: Path | None = None,
    official: bool = False,
    further_features: Sequence[Path] = (),
    bag: Literal["slide", "patient"] = "slide",
) -> CohortData:
    """Reads labels, matches them with the features, and makes or reads the folds.

    Args:
        features: Features of the first encoder.
        labels: Table of labels; None takes those inside a packed file.
        split: How folds are made.
        splits_file: Folds to read in place of making them; of slides, also where bags are patients.
        official: Use the cohort's own split.
        further_features: Features of the same tiles by further encoders.
        bag: What a bag is.

    Raises:
        InputError: Wrong input; the message names file, value and remedy.
    """
    source, labelled = load_cohort(
        features, labels, "slide_id" if split.group == "slide_id" else None, further_features
    )
    match = match_features(labelled, source)
    warnings = list(labelled.notes)
    if labelled.case_id_assumed or split.group == "slide_id":
        warnings.append(
            "Each slide was taken for a patient of its own (--group slide_id): if patients have several "
            "slides, training and test share patients and the results are too good."
        )
    by_slide = match.cohort
    # Joined encoders have seen the same tiles: what the first one's files say holds for all.
    slides_source = source.parts[0] if isinstance(source, JoinedBags) else source
    evidence = evidence_of_source(
        slides_source, slide_ids=by_slide.slide_ids, most_bytes=_MOST_BYTES_FOR_THE_AUDIT
    )
    slides: dict[str, tuple[str, ...]] = {slide_id: (slide_id,) for slide_id in by_slide.slide_ids}
    if bag == "patient":
        of_patients, slides = patient_cohort(by_slide)
        source, match = PatientBags(source, slides), replace(match, cohort=of_patients)
    if splits_file is not None:
        splits = read_any_splits(splits_file, labelled).restricted_to(by_slide.slide_ids)
        splits = patient_splits(splits, by_slide) if bag == "patient" else splits
    elif official:
        splits = official_splits(match.cohort, split)
    else:
        splits = make_splits(match.cohort, split)
    for number, fold in enumerate(splits.folds):
        for name in ("train", "validation", "test"):
            if not fold.part(name):
                raise InputError(
                    f"Fold {number} has no slide with features in its {name} part: there are too few "
                    "patients or slides for this split; use fewer folds or another validation share."
                )
    warnings += [str(text) for text in splits.meta.get("warnings", ())]
    return CohortData(
        source,
        labelled,
        match,
        splits,
        (slide_splits(splits, slides), by_slide),
        tuple(warnings),
        _hashes(slides_source, by_slide, evidence),
        evidence,
    )


def compared_slides(splits: Splits, cohort: Cohort, evidence: Evidence) -> dict[str, int]:
    """What an audit compares → of how many slides of the splits it is known."""
    in_splits = {s for fold in splits.folds for name in PARTS for s in fold.part(name)}
    prints = {*evidence.fingerprints, *cohort.fingerprints}
    return {
        "patient": 0 if cohort.case_id_assumed else len(in_splits & set(cohort.slide_ids)),
        "file content": len(in_splits & prints),
        "features": len(in_splits & set(evidence.features)),
        "file name": len(in_splits & set(evidence.paths)),
        "thumbnail": len(in_splits & set(evidence.looks)),
    }


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
