"""The four regimes: how much, how even and how truthful the labels are that a loss gets to learn from."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.cohorts import Cohort, Fold
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.training import LabelledSlides
from wsi_ncmi.training.sampling import derive_seed

__all__ = ["REGIMES", "Regime", "StudyParts", "prepare_parts"]

# Class shares of patients, largest class first, by number of classes (those of CAMELYON-17's slides, merged).
_IMBALANCED: Mapping[int, tuple[float, ...]] = {2: (0.90, 0.10), 3: (0.64, 0.29, 0.07)}
_LEAST_TRAINING = 2
_LEAST_VALIDATION = 1


@dataclass(frozen=True, kw_only=True)
class Regime:
    """How the training and validation parts of a fold are changed; the test part never is.

    Attributes:
        name: Name in tables.
        patients: Share of the patients of each class that is kept, in training and validation.
        imbalanced: Draw patients so that classes have the shares of CAMELYON-17, in training and validation.
        noise: Share of training slides whose label is replaced by another class, each equally likely.
        epochs: Passes over the training slides: more where there are few, so that all get enough steps.
    """

    name: str
    patients: float = 1.0
    imbalanced: bool = False
    noise: float = 0.0
    epochs: int = 20


REGIMES: Mapping[str, Regime] = {
    regime.name: regime
    for regime in (
        Regime(name="full"),
        Regime(name="patients_25", patients=0.25, epochs=40),
        Regime(name="patients_10", patients=0.10, epochs=60),
        Regime(name="imbalanced", imbalanced=True),
        Regime(name="noise_20", noise=0.20),
    )
}


@dataclass(frozen=True)
class StudyParts:
    """The parts of a run: training and validation with the regime's labels, and the untouched test part."""

    train: LabelledSlides
    validation: LabelledSlides
    test: LabelledSlides


def prepare_parts(cohort: Cohort, fold: Fold, regime: Regime, draw: int) -> StudyParts:
    """Applies a regime to a fold; the same for every loss.

    Args:
        cohort: Labels and patients.
        fold: Its slides.
        regime: The changes.
        draw: Seed of the draws; other seeds draw other patients and other wrong labels.

    Raises:
        InputError: Imbalance for a number of classes that has no shares.
    """
    train = _thinned(cohort, fold.train, regime, draw, "train", _LEAST_TRAINING)
    validation = _thinned(cohort, fold.validation, regime, draw, "validation", _LEAST_VALIDATION)
    labelled = _labelled(cohort, train)
    if regime.noise:
        labelled = LabelledSlides(
            labelled.slide_ids, _mislabelled(labelled.y, len(cohort.classes), regime.noise, draw)
        )
    return StudyParts(labelled, _labelled(cohort, validation), _labelled(cohort, fold.test))


def _thinned(
    cohort: Cohort, slide_ids: tuple[str, ...], regime: Regime, draw: int, part: str, least: int
) -> tuple[str, ...]:
    if regime.patients == 1 and not regime.imbalanced:
        return slide_ids
    rows = cohort.by_slide
    # A patient counts for the class of the first slide; nearly all have one class.
    patients: dict[str, dict[str, None]] = {name: {} for name in cohort.classes}
    seen: set[str] = set()
    for slide_id in sorted(slide_ids):
        row = rows[slide_id]
        if row.case_id not in seen:
            seen.add(row.case_id)
            patients[row.label][row.case_id] = None
    wanted = _wanted({name: len(of) for name, of in patients.items()}, regime)
    generator = np.random.default_rng(derive_seed(draw, "study", part, regime.name))
    kept: set[str] = set()
    for name, of_class in patients.items():
        order = generator.permutation(sorted(of_class)).tolist()
        kept.update(order[: max(least, wanted[name])])
    return tuple(slide_id for slide_id in slide_ids if rows[slide_id].case_id in kept)


def _wanted(counts: Mapping[str, int], regime: Regime) -> dict[str, int]:
    if not regime.imbalanced:
        return {name: round(regime.patients * count) for name, count in counts.items()}
    shares = _IMBALANCED.get(len(counts))
    if shares is None:
        raise InputError(
            f"The imbalanced regime is defined for 2 or 3 classes, this cohort has {len(counts)}."
        )
    largest_first = sorted(counts, key=lambda name: (-counts[name], name))
    share = dict(zip(largest_first, shares, strict=True))
    total = min(counts[name] / share[name] for name in counts)
    return {name: round(total * share[name]) for name in counts}


def _labelled(cohort: Cohort, slide_ids: tuple[str, ...]) -> LabelledSlides:
    rows, index = cohort.by_slide, cohort.class_index
    return LabelledSlides(slide_ids, np.array([index[rows[s].label] for s in slide_ids], dtype=np.int64))


def _mislabelled(y: NDArray[np.int64], classes: int, share: float, draw: int) -> NDArray[np.int64]:
    generator = np.random.default_rng(derive_seed(draw, "study", "noise"))
    wrong = generator.choice(len(y), size=round(share * len(y)), replace=False)
    noisy = y.copy()
    noisy[wrong] = (y[wrong] + generator.integers(1, classes, size=len(wrong))) % classes
    return noisy
