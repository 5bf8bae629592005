"""The leak audit: what would let a model be tested on what it was trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from wsi_ncmi.cohorts.cohort import Cohort
from wsi_ncmi.cohorts.fold import PARTS, Fold, Splits

__all__ = ["Leak", "find_leaks"]

_SHOWN = 3


@dataclass(frozen=True)
class Leak:
    """One finding.

    Attributes:
        kind: ``patient``, ``slide`` or ``content`` in two parts, ``test_twice`` (a slide tested in two
            folds), ``class`` or ``centre`` missing from a part, ``unknown`` slide.
        fold: Position of the fold; -1 where it concerns several.
        what: The patient, slide, class or centre.
        detail: One sentence.
        fatal: Whether training must refuse the split; what is merely missing from validation or test is a
            warning.
    """

    kind: Literal["patient", "slide", "content", "test_twice", "class", "centre", "unknown"]
    fold: int
    what: str
    detail: str
    fatal: bool


def find_leaks(
    splits: Splits, cohort: Cohort | None = None, *, fingerprints: Mapping[str, str] | None = None
) -> list[Leak]:
    """Audits splits.

    Args:
        splits: Ours, or read with ``read_any_splits``.
        cohort: Labels; without them only slides can be compared, not patients, classes or centres.
        fingerprints: Slide id → content hash (``slides.csv``), to find one slide under two names.

    Returns:
        All findings, in the order of the folds; empty = clean.
    """
    leaks: list[Leak] = []
    for k, fold in enumerate(splits.folds):
        leaks += _shared(k, fold, "slide", {s: s for part in PARTS for s in fold.part(part)})
        if cohort is not None:
            leaks += _unknown(k, fold, cohort)
            leaks += _shared(k, fold, "patient", {row.slide_id: row.case_id for row in cohort.rows})
            leaks += _missing(k, fold, cohort)
        if fingerprints:
            leaks += _shared(k, fold, "content", fingerprints)
    leaks += _tested_twice(splits)
    return leaks


def _shared(
    k: int, fold: Fold, kind: Literal["patient", "slide", "content"], keys: Mapping[str, str]
) -> Iterator[Leak]:
    parts: dict[str, dict[str, list[str]]] = {}
    for part in PARTS:
        for slide_id in fold.part(part):
            key = keys.get(slide_id, "")
            if key:
                parts.setdefault(key, {}).setdefault(part, []).append(slide_id)
    noun = {"patient": "Patient", "slide": "Slide", "content": "The same image"}[kind]
    for key, found in sorted(parts.items()):
        if kind == "content" and len({s for names in found.values() for s in names}) == 1:
            continue  # one slide in two parts is reported as such already
        if len(found) > 1:
            where = ", ".join(f"{part} ({', '.join(names[:_SHOWN])})" for part, names in found.items())
            yield Leak(kind, k, key, f"Fold {k}: {noun} {key} is in {where}.", fatal=True)
        if kind == "slide":
            for part, names in found.items():
                if len(names) > 1:
                    yield Leak(
                        kind, k, key, f"Fold {k}: Slide {key} is {len(names)} times in {part}.", fatal=True
                    )


def _unknown(k: int, fold: Fold, cohort: Cohort) -> Iterator[Leak]:
    for part in PARTS:
        for slide_id in fold.part(part):
            if slide_id not in cohort.by_slide:
                yield Leak(
                    "unknown", k, slide_id, f"Fold {k}: Slide {slide_id} in {part} has no label.", fatal=True
                )


def _missing(k: int, fold: Fold, cohort: Cohort) -> Iterator[Leak]:
    for part in PARTS:
        rows = [cohort.by_slide[s] for s in fold.part(part) if s in cohort.by_slide]
        if not rows and part == "validation":
            continue  # a split without validation is a choice, not an accident
        for name in cohort.classes:
            if all(row.label != name for row in rows):
                detail = f"Fold {k}: class {name} has no slide in {part}."
                yield Leak("class", k, name, detail, fatal=part == "train")
        for name in cohort.centres:
            if all(row.centre != name for row in rows):
                yield Leak("centre", k, name, f"Fold {k}: centre {name} has no slide in {part}.", fatal=False)


def _tested_twice(splits: Splits) -> Iterator[Leak]:
    # Pooled out-of-fold metrics would count such a slide twice. Repeated random splits (as CLAM makes them)
    # do this on purpose, so it doesn't stop a training.
    tested: dict[str, list[int]] = {}
    for k, fold in enumerate(splits.folds):
        for slide_id in set(fold.test):
            tested.setdefault(slide_id, []).append(k)
    for slide_id, folds in sorted(tested.items()):
        if len(folds) > 1:
            shown = ", ".join(map(str, folds))
            yield Leak(
                "test_twice", -1, slide_id, f"Slide {slide_id} is tested in folds {shown}.", fatal=False
            )
