"""Folds of a cohort: their parts, settings and balance."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from wsi_ncmi.cohorts.cohort import Cohort
from wsi_ncmi.core.config import configclass, contradiction
from wsi_ncmi.core.errors import counted
from wsi_ncmi.metrics.calibration import MIN_SLIDES
from wsi_ncmi.slides import SlideIndex

PARTS = ("train", "validation", "test")
FEW_OF_A_CLASS = 5


@configclass
class SplitConfig:
    """How to split a cohort.

    Attributes:
        folds: Number of test folds; 1 = one hold-out of size ``test``.
        validation: Share of each fold's training patients kept for model choice, which training needs; 0 =
            none.
        test: Share of the patients in the hold-out; used only with ``folds=1``.
        group: What must stay together: the patient (``case_id``), all patients of a centre (``centre``, a
            site-preserved split: Howard et al. 2021, Nature Communications 12:4423), or nothing but the slide
            (``slide_id``).
        stratify: What to balance between parts: the class, and the centre as far as the class allows.
        seed: Seed of the order in which equal patients are dealt.
    """

    folds: int = Field(default=5, ge=1, le=1000)
    validation: float = Field(default=0.2, ge=0.0, lt=1.0)
    test: float = Field(default=0.2, gt=0.0, lt=1.0)
    group: Literal["case_id", "centre", "slide_id"] = "case_id"
    stratify: tuple[Literal["label", "centre"], ...] = ("label", "centre")
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _check_hold_out(self) -> Self:
        if self.folds > 1 and self.test != 0.2:
            raise contradiction("only a hold-out (1 fold) has a test share; leave it out", "test", "folds")
        return self


@dataclass(frozen=True)
class Fold:
    """Slide ids of one fold's parts, each sorted."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def part(self, name: str) -> tuple[str, ...]:
        """The slides of ``train``, ``validation`` or ``test``."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]

    def spelled_as(self, index: SlideIndex) -> Fold:
        """The fold with ids as another source spells them; unknown ones stay."""
        return Fold(*(tuple(map(index.spelled, self.part(name))) for name in PARTS))

    def restricted_to(self, slide_ids: Collection[str]) -> Fold:
        """The fold without slides outside ``slide_ids`` (for example those without features)."""
        wanted = set(slide_ids)
        parts = (tuple(s for s in self.part(name) if s in wanted) for name in PARTS)
        return Fold(*parts)


@dataclass(frozen=True, repr=False)
class Splits:
    """All folds and how they came about.

    Attributes:
        folds: One fold a test part.
        meta: JSON-ready: ``kind`` (``k-fold``, ``hold-out``, ``official``, ``table``), ``labels_sha256``,
            ``options``, ``classes``, ``case_id_assumed``, ``imbalance`` and ``warnings``.
    """

    folds: tuple[Fold, ...]
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(f.train)}/{len(f.validation)}/{len(f.test)}" for f in self.folds)
        kind = self.meta.get("kind", "folds")
        return f"<Splits {kind}, {len(self.folds)} × training/validation/test slides: {sizes}>"

    def spelled_as(self, slide_ids: Collection[str]) -> Splits:
        """The same folds with ids spelled as in ``slide_ids``, where they mean one of them."""
        index = SlideIndex(slide_ids)
        return replace(self, folds=tuple(fold.spelled_as(index) for fold in self.folds))

    def restricted_to(self, slide_ids: Collection[str]) -> Splits:
        """The same folds without slides outside ``slide_ids``, spelled as there."""
        folds = self.spelled_as(slide_ids).folds
        return replace(self, folds=tuple(fold.restricted_to(slide_ids) for fold in folds))


def describe_splits(
    folds: Sequence[Fold], cohort: Cohort, kind: str, options: SplitConfig | None
) -> dict[str, Any]:
    """Builds ``Splits.meta``.

    Returns:
        JSON-ready: ``kind``, ``labels_sha256``, ``options``, ``classes``, ``case_id_assumed``, ``counts``
        (a list over folds of part → ``slides``, ``patients``, ``classes``, ``centres``), ``imbalance``
        (``class`` and ``centre``: the largest deviation of a test part's count from an even share, in slides
        and as a fraction of that share) and ``warnings``.
    """
    counts = [{part: _count(cohort, fold.part(part)) for part in PARTS} for fold in folds]
    return {
        "kind": kind,
        "labels_sha256": cohort.sha256,
        "options": dataclasses.asdict(options) if options is not None else {},
        "classes": list(cohort.classes),
        "case_id_assumed": cohort.case_id_assumed,
        "counts": counts,
        "imbalance": {
            "class": _worst(counts, "classes", cohort.classes),
            "centre": _worst(counts, "centres", cohort.centres),
        },
        "warnings": _warnings(counts, cohort, options),
    }


def _count(cohort: Cohort, slide_ids: Sequence[str]) -> dict[str, Any]:
    rows = [cohort.by_slide[s] for s in slide_ids]
    return {
        "slides": len(rows),
        "patients": len({row.case_id for row in rows}),
        "classes": {name: sum(row.label == name for row in rows) for name in cohort.classes},
        "centres": {name: sum(row.centre == name for row in rows) for name in cohort.centres},
    }


def _worst(counts: Sequence[dict[str, Any]], what: str, names: Sequence[str]) -> dict[str, Any] | None:
    worst: dict[str, Any] | None = None
    for name in names:
        in_tests = [count["test"][what][name] for count in counts]
        even = sum(in_tests) / len(in_tests)
        for k, found in enumerate(in_tests):
            relative = abs(found - even) / even if even else 0.0
            if worst is None or relative > worst["relative"]:
                worst = {"name": name, "fold": k, "slides": found, "even_share": even, "relative": relative}
    return worst


def _warnings(counts: Sequence[dict[str, Any]], cohort: Cohort, options: SplitConfig | None) -> list[str]:
    found: list[str] = []
    by_centre = options is not None and options.group == "centre"
    bare = [f"fold {k}" for k, count in enumerate(counts) if not count["validation"]["slides"]]
    if bare and options is not None and options.validation:
        found.append(
            f"No validation part in {', '.join(bare)}, and training needs one: no class has three patients "
            "outside the test part; add patients or folds."
        )
    if cohort.case_id_assumed:
        found.append("No patient ids: each slide was taken for a patient, so a patient may be in two parts.")
    for k, count in enumerate(counts):
        for part in PARTS:
            if not count[part]["slides"]:
                if part != "validation":
                    found.append(f"Fold {k} has no {part} slides.")
                continue
            missing = [name for name, n in count[part]["classes"].items() if n == 0]
            if missing:
                found.append(f"Fold {k}: class {', '.join(missing)} has no slide in the {part} part.")
    found += _few_validation_slides(counts)
    absent = [name for name in cohort.centres if _could_be_everywhere_but_is_not(name, counts, cohort)]
    if absent and not by_centre:
        found.append(f"Centre {', '.join(absent)} has no slide in the training or test part of some fold.")
    return found


def _few_validation_slides(counts: Sequence[dict[str, Any]]) -> list[str]:
    folds = []
    for k, count in enumerate(counts):
        slides, classes = count["validation"]["slides"], count["validation"]["classes"]
        few = [f"{n} of {name}" for name, n in classes.items() if 0 < n < FEW_OF_A_CLASS]
        if 0 < slides < MIN_SLIDES or (slides and few):
            folds.append(f"fold {k} ({', '.join([counted(slides, 'slide'), *few])})")
    if not folds:
        return []
    more = f" and {len(folds) - 3} more" if len(folds) > 3 else ""
    return [
        f"The epoch is chosen on few validation slides in {', '.join(folds[:3])}{more}: that choice, and a "
        "temperature fitted on them, are largely chance."
    ]


def _could_be_everywhere_but_is_not(centre: str, counts: Sequence[dict[str, Any]], cohort: Cohort) -> bool:
    # A centre with fewer patients than test parts can't be in each; that isn't worth a warning.
    patients = len({row.case_id for row in cohort.rows if row.centre == centre})
    if patients < max(2, len(counts)):
        return False
    return any(count[part]["centres"][centre] == 0 for count in counts for part in ("train", "test"))
