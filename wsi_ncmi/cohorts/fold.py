"""Folds: which slide trains, which chooses the model and which tests it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import Field

from wsi_ncmi.core.config import configclass

__all__ = ["PARTS", "Fold", "SplitConfig", "Splits"]

PARTS = ("train", "validation", "test")


@configclass
class SplitConfig:
    """How to split a cohort.

    Attributes:
        folds: Number of test folds; 1 = one hold-out of size ``test``.
        validation: Share of each fold's training patients kept for model choice; 0 = none.
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


@dataclass(frozen=True)
class Fold:
    """Slide ids of one fold's parts, each sorted."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def part(self, name: str) -> tuple[str, ...]:
        """The slides of ``train``, ``validation`` or ``test``."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]

    def restricted_to(self, slide_ids: Collection[str]) -> Fold:
        """The fold without slides outside ``slide_ids`` (for example those without features)."""
        wanted = set(slide_ids)
        parts = (tuple(s for s in self.part(name) if s in wanted) for name in PARTS)
        return Fold(*parts)


@dataclass(frozen=True)
class Splits:
    """All folds and how they came about.

    Attributes:
        folds: One fold a test part.
        meta: JSON-ready: ``kind`` (``k-fold``, ``hold-out``, ``official``, ``table``), ``labels_sha256``,
            ``options``, ``classes``, ``case_id_assumed``, ``imbalance`` and ``warnings``.
    """

    folds: tuple[Fold, ...]
    meta: Mapping[str, Any] = field(default_factory=dict)

    def restricted_to(self, slide_ids: Collection[str]) -> Splits:
        """The same folds without slides outside ``slide_ids``."""
        return replace(self, folds=tuple(fold.restricted_to(slide_ids) for fold in self.folds))
