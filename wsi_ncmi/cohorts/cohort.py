"""A cohort: which slide belongs to which patient, class and centre."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

__all__ = ["Cohort", "CohortRow", "order_classes"]

# Ordinal scales whose order carries meaning (quadratic kappa, confusion matrix) and isn't alphabetical.
_KNOWN_SCALES = (
    ("negative", "itc", "micro", "macro"),
    ("N", "PB", "UDH", "FEA", "ADH", "DCIS", "IC"),
    ("benign", "atypical", "malignant"),
    ("normal", "tumor"),
)


@dataclass(frozen=True)
class CohortRow:
    """One labelled slide; every id is a string exactly as written ('007' stays '007').

    Attributes:
        slide_id: Name of the slide, without slide extension where the reader could tell.
        case_id: The patient.
        label: The class.
        centre: Hospital or site, ``""`` where unknown.
    """

    slide_id: str
    case_id: str
    label: str
    centre: str = ""


@dataclass(frozen=True)
class Cohort:
    """Labelled slides of one task.

    Attributes:
        rows: One row a slide, in the order of the file.
        classes: All classes of the task in reporting order, also those without a row.
        case_id_assumed: True where no patient id was known and each slide was taken for a patient.
        official_split: Slide id → ``train`` | ``validation`` | ``test`` where the cohort ships one.
        notes: Sentences a report must show (unreliable patient ids, dropped identical rows, …).
        fingerprints: Slide id → content of the slide file, where features that say so were matched.
    """

    rows: tuple[CohortRow, ...]
    classes: tuple[str, ...]
    case_id_assumed: bool = False
    official_split: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    fingerprints: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def by_slide(self) -> Mapping[str, CohortRow]:
        """Slide id → row."""
        return {row.slide_id: row for row in self.rows}

    @cached_property
    def slide_ids(self) -> tuple[str, ...]:
        """Slide ids in row order."""
        return tuple(row.slide_id for row in self.rows)

    @property
    def case_ids(self) -> tuple[str, ...]:
        """Distinct patients, sorted."""
        return tuple(sorted({row.case_id for row in self.rows}))

    @property
    def centres(self) -> tuple[str, ...]:
        """Distinct known centres, sorted."""
        return tuple(sorted({row.centre for row in self.rows if row.centre}))

    @cached_property
    def class_index(self) -> Mapping[str, int]:
        """Class → its position in ``classes``: the integer target of training."""
        return {name: i for i, name in enumerate(self.classes)}

    def restricted_to(self, slide_ids: Collection[str]) -> Cohort:
        """The cohort with only these slides; the classes of the task stay as they are."""
        wanted = set(slide_ids)
        return replace(
            self,
            rows=tuple(row for row in self.rows if row.slide_id in wanted),
            official_split={s: part for s, part in self.official_split.items() if s in wanted},
            fingerprints={s: found for s, found in self.fingerprints.items() if s in wanted},
        )

    @cached_property
    def sha256(self) -> str:
        """Hash of slide, patient, class and centre of every row, whatever the order of the rows."""
        rows = sorted((row.slide_id, row.case_id, row.label, row.centre) for row in self.rows)
        return hashlib.sha256(json.dumps(rows, ensure_ascii=False).encode()).hexdigest()


def order_classes(labels: Iterable[str]) -> tuple[str, ...]:
    """Puts class names in reporting order.

    A known clinical scale keeps its order (negative, itc, micro, macro), numbers sort as numbers and
    everything else alphabetically.
    """
    names = set(labels)
    for scale in _KNOWN_SCALES:
        if names <= set(scale):
            return tuple(name for name in scale if name in names)
    if all(name.isdecimal() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))
