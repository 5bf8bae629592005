"""From a labels table to a validated cohort."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wsi_ncmi.cohorts.adapters import bracs, camelyon16, camelyon17, plain, slideflow, stamp, tcga
from wsi_ncmi.cohorts.cohort import Cohort, order_classes
from wsi_ncmi.cohorts.exclusion import Exclusion, read_exclusion
from wsi_ncmi.cohorts.labelled import Labelled
from wsi_ncmi.cohorts.rows import RowFinding, examine_rows
from wsi_ncmi.cohorts.spec import COLUMN_SETTINGS, LabelsSpec, parse_spec
from wsi_ncmi.cohorts.table import Table, read_table
from wsi_ncmi.core.errors import InputError

__all__ = ["ADAPTERS", "Adapter", "adapter_of", "exclusion_of", "notes_of", "read_labels"]


_FOR_ALL = ("exclude", "sheet")


@dataclass(frozen=True)
class Adapter:
    """How one kind of table is read.

    Attributes:
        read: Table and how it was named → its slides.
        settings: Settings of ``?key=value`` that it takes, beside ``exclude`` (slides to leave out) and
            ``sheet`` (of a workbook), which all take.
    """

    read: Callable[[Table, LabelsSpec], Labelled]
    settings: tuple[str, ...] = ()


def read_labels(
    path_or_spec: str | Path, *, group: str | None = None, classes: Sequence[str] | None = None
) -> Cohort:
    """Reads the labels of a cohort.

    Args:
        path_or_spec: A CSV with ``slide_id``, ``label`` and, where known, ``case_id`` (patient) and
            ``centre`` (or ``center``); or ``adapter:FILE``, such as ``camelyon17:stage_labels.csv``
            (see ``ADAPTERS``). Settings follow a question mark: ``?label=subtype&exclude=bad_slides.txt``.
        group: ``"slide_id"`` = the user says that each slide is a patient of its own; needed where the table
            knows no patients. Patient ids that are known are kept all the same.
        classes: All classes of the task in order; default: those in the table, in a sensible order.

    Returns:
        The cohort, one row a slide, all ids strings as written, slide ids without slide extension. A patient
        whose slides differ in class is fine.

    Raises:
        InputError: Names file, row, column and value: a column missing, an empty id or label, a slide twice
            with different content, an unknown class, no patient ids, or one class only.
    """
    spec = parse_spec(path_or_spec)
    adapter = adapter_of(spec)
    table = read_table(spec.path, spec.settings.get("sheet"))
    labelled = adapter.read(table, spec)
    if labelled.case_problem and group != "slide_id":
        raise InputError(
            f"{spec.path} {labelled.case_problem}: without patient ids one patient could be in training and "
            "test; add a column 'case_id', or say with --group slide_id that each slide is a patient of its "
            "own."
        )
    path = labelled.origin or spec.path
    exclusion = exclusion_of(spec)
    rows, findings = examine_rows(path, labelled, classes or labelled.classes, exclusion)
    fatal = next((finding for finding in findings if finding.fatal), None)
    if fatal is not None:
        raise InputError(fatal.detail)
    if not rows:
        raise InputError(f"{path} holds no slides that the adapter {spec.adapter!r} could use.")
    found = {row.label for row in rows}
    if len(found) < 2:
        raise InputError(
            f"All {len(rows)} slides of {path} have the class {next(iter(found))!r}; a task needs two."
        )
    kept = {row.slide_id for row in rows}
    return Cohort(
        rows=rows,
        classes=tuple(classes) if classes else (labelled.classes or order_classes(found)),
        case_id_assumed=bool(labelled.case_problem),
        official_split={s: p for s, p in labelled.official_split.items() if s in kept},
        notes=(*labelled.notes, *notes_of(path, labelled, findings, exclusion)),
    )


def adapter_of(spec: LabelsSpec) -> Adapter:
    """The adapter that labels name.

    Raises:
        InputError: There is no such adapter, or it doesn't take a setting.
    """
    if spec.adapter not in ADAPTERS:
        raise InputError(
            f"Unknown labels adapter {spec.adapter!r} in {f'{spec.adapter}:{spec.path}'!r}; "
            f"known are {', '.join(sorted(ADAPTERS))}."
        )
    adapter = ADAPTERS[spec.adapter]
    for key in spec.settings:
        if key not in (*adapter.settings, *_FOR_ALL):
            valid = ", ".join((*adapter.settings, *_FOR_ALL))
            raise InputError(
                f"The labels adapter {spec.adapter!r} takes no setting {key!r}; it takes {valid}."
            )
    return adapter


def exclusion_of(spec: LabelsSpec) -> Exclusion | None:
    """The list of slides to leave out that labels name, or None."""
    path = spec.file("exclude")
    return None if path is None else read_exclusion(path)


def notes_of(
    path: Path, labelled: Labelled, findings: Sequence[RowFinding], exclusion: Exclusion | None
) -> tuple[str, ...]:
    """Sentences for the report about rows that were left out."""
    repeated = sum(finding.kind == "repeated" for finding in findings)
    notes = [f"{repeated} rows of {path.name} repeated an earlier row and were left out."] if repeated else []
    if exclusion is not None:
        excluded = sum(finding.kind == "excluded" for finding in findings)
        notes.append(f"{excluded} slides were left out by {exclusion.name}.")
        known = {row.case_id or "" for row in labelled.rows} | {
            f.slide_id for f in findings if f.kind == "excluded"
        }
        unused = exclusion.unused(known)
        if unused:
            notes.append(
                f"{len(unused)} entries of {exclusion.name} name no slide here, for example {unused[0]!r}."
            )
    return tuple(notes)


def _alone(read: Callable[[Table], Labelled]) -> Adapter:
    return Adapter(lambda table, _: read(table))


_PLAIN = Adapter(lambda table, spec: plain.read(table, spec.settings), COLUMN_SETTINGS)
_BRACS7 = Adapter(lambda table, spec: bracs.seven_classes(table, spec.settings), ("case_id",))
_STAMP = Adapter(
    lambda table, spec: stamp.read(table, spec.settings, spec.file("slides")),
    ("slides", "slides_sheet", *COLUMN_SETTINGS),
)

ADAPTERS: Mapping[str, Adapter] = {
    "bracs": _BRACS7,
    "bracs3": Adapter(lambda table, spec: bracs.three_classes(table, spec.settings), ("case_id",)),
    "bracs7": _BRACS7,
    "camelyon16": _alone(camelyon16.read),
    "camelyon17": _alone(camelyon17.read),
    "clam": _PLAIN,
    "csv": _PLAIN,
    "slideflow": Adapter(lambda table, spec: slideflow.read(table, _columns(spec)), ("label", "centre")),
    "stamp": _STAMP,
    "tcga": Adapter(lambda table, spec: tcga.read(table, _columns(spec)), ("slide_id", "label")),
}
"""Adapter name → how to read that kind of table; ``csv`` is the plain form."""


def _columns(spec: LabelsSpec) -> Mapping[str, str]:
    return {key: value for key, value in spec.settings.items() if key in COLUMN_SETTINGS}
