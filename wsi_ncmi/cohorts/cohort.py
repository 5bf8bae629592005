"""Cohorts: patient, class and centre of each slide."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from html import escape
from pathlib import Path

from wsi_ncmi.core.errors import InputError, counted
from wsi_ncmi.core.values import SUSPECT, holds_control, is_empty, suspects

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


@dataclass(frozen=True, repr=False)
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

    def __repr__(self) -> str:
        counts = Counter(row.label for row in self.rows)
        classes = ", ".join(f"{name} {counts[name]}" for name in self.classes)
        patients = "patients unknown" if self.case_id_assumed else counted(len(self.case_ids), "patient")
        return f"<Cohort {counted(len(self.rows), 'slide')}, {patients}: {classes}>"

    def _repr_html_(self) -> str:
        """A row a class in a notebook."""
        slides, patients = (
            Counter(row.label for row in self.rows),
            {name: set[str]() for name in self.classes},
        )
        for row in self.rows:
            patients[row.label].add(row.case_id)
        body = "".join(
            f"<tr><td>{escape(name)}</td><td>{slides[name]}</td><td>{len(patients[name])}</td></tr>"
            for name in self.classes
        )
        return f"<table><tr><th>class</th><th>slides</th><th>patients</th></tr>{body}</table>"

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


def cohort_of_columns(
    path: Path,
    slide_ids: Sequence[str],
    labels: Sequence[str] | None,
    cases: Sequence[str] | None,
    centres: Sequence[str] | None,
    group: str | None,
) -> Cohort | None:
    """The cohort that columns of texts describe, or None where there are no labels.

    Args:
        path: The file, for messages.
        slide_ids: Ids.
        labels: Class of each slide.
        cases: Patient of each slide, None where the file doesn't know.
        centres: Centre of each slide, None where the file doesn't know.
        group: ``"slide_id"`` = the user says that each slide is a patient of its own; known patient ids are
            kept all the same, so that the leak audit can see what that does.

    Raises:
        InputError: Labels without patients and without that word of the user, a label or patient that is
            empty or says that there is no value, a single class, or classes spelled almost alike.
    """
    if labels is None:
        return None
    if cases is None and group != "slide_id":
        raise InputError(
            f"{path} has no 'case_id': without patient ids a patient could be in training and test; "
            "add 'case_id', or say with --group slide_id that each slide is a patient of its own."
        )
    assumed = cases is None
    patients = slide_ids if cases is None else cases
    for column, values in (("label", labels), ("case_id", patients)):
        for slide_id, value in zip(slide_ids, values, strict=True):
            if is_empty(value):
                said = f" ({value!r} means no value)" if value else ""
                raise InputError(f"{path}: slide {slide_id!r} has an empty {column!r}{said}; fill it in.")
    columns = {"slide_id": slide_ids, "label": labels, "case_id": patients, "centre": centres or ()}
    for column, texts in columns.items():
        for value in filter(holds_control, texts):
            raise InputError(f"{path}: the {column} {value!r} holds a control character; remove it.")
    classes = order_classes(labels)
    if len(classes) < 2:
        raise InputError(f"{path} holds only the class {classes[0]!r}; a task needs at least two.")
    for a, b, *_ in suspects(classes):
        raise InputError(f"{path}: the classes {a!r} and {b!r} {SUSPECT}; spell them alike.")
    alike = [] if assumed else suspects(patients)
    notes = [
        f"{path.name}: the patients {a!r} and {b!r} {SUSPECT}; if they are the same, spell them alike."
        for a, b, *_ in alike[:1]
    ]
    where = ["" if is_empty(centre) else centre for centre in centres or ("",) * len(slide_ids)]
    rows = zip(slide_ids, patients, labels, where, strict=True)
    return Cohort(
        tuple(CohortRow(*row) for row in rows), classes, case_id_assumed=assumed, notes=tuple(notes)
    )
