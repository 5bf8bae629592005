"""Reading of a labels table into a validated cohort."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wsi_ncmi.cohorts.cohort import Cohort, order_classes
from wsi_ncmi.cohorts.dicom_labels import read_dicom_labels
from wsi_ncmi.cohorts.external_labels import read_slideflow, read_stamp
from wsi_ncmi.cohorts.label_table import (
    Exclusion,
    LabelTable,
    RowFinding,
    examine_rows,
    known_ids,
    read_exclusion,
)
from wsi_ncmi.cohorts.public_labels import (
    read_bracs3,
    read_bracs7,
    read_camelyon16,
    read_camelyon17,
    read_plain,
    read_tcga,
)
from wsi_ncmi.core.errors import InputError, counted
from wsi_ncmi.core.tables import Table, read_table
from wsi_ncmi.core.values import SUSPECT, suspects_between

COLUMN_SETTINGS = ("slide_id", "case_id", "label", "centre")
"""Settings that name a column of the table in place of the usual one."""

_ADAPTER = re.compile(r"([A-Za-z][A-Za-z0-9_-]*):(.+)", re.DOTALL)


@dataclass(frozen=True)
class LabelsSpec:
    """Which file, read how.

    Attributes:
        adapter: Name of the adapter, ``csv`` where none was named.
        path: The table.
        settings: Key → text, for example ``label`` → ``subtype``; files in it are absolute or relative to the
            working directory, or else to the table's folder.
    """

    adapter: str
    path: Path
    settings: Mapping[str, str] = field(default_factory=dict)

    def file(self, key: str) -> Path | None:
        """The file that a setting names, or None where it wasn't given.

        Raises:
            InputError: There is no such file.
        """
        if key not in self.settings:
            return None
        given = Path(self.settings[key])
        for candidate in (given, self.path.parent / given):
            if candidate.is_file():
                return candidate
        raise InputError(f"There is no file {given} ({key}= of the labels {self.path}); check the path.")


def parse_spec(path_or_spec: str | Path) -> LabelsSpec:
    """Takes a labels argument apart; whether adapter and settings exist is not judged here.

    Raises:
        InputError: A setting without ``=``, or one given twice.
    """
    text = str(path_or_spec)
    if Path(text).exists():
        return LabelsSpec("csv", Path(text))
    match = _ADAPTER.fullmatch(text)
    adapter, rest = match.groups() if match else ("csv", text)
    file, _, query = rest.partition("?")
    settings: dict[str, str] = {}
    for item in query.split("&") if query else ():
        key, equals, value = item.partition("=")
        if not equals or not key or not value:
            raise InputError(f"The setting {item!r} in {text!r} is not key=value, such as label=subtype.")
        if key in settings:
            raise InputError(f"The setting {key!r} is in {text!r} twice; keep one.")
        settings[key] = value
    return LabelsSpec(adapter, Path(file), settings)


_FOR_ALL = ("exclude", "sheet")


@dataclass(frozen=True)
class Adapter:
    """How one kind of table is read.

    Attributes:
        read: Table and how it was named → its slides.
        settings: Settings of ``?key=value`` that it takes, beside ``exclude`` (slides to leave out) and
            ``sheet`` (of a workbook), which all take.
    """

    read: Callable[[Table, LabelsSpec], LabelTable]
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
    fatal = [finding for finding in findings if finding.fatal]
    if fatal:
        more = f" ({len(fatal) - 1} more like it; 'wsi-ncmi audit' lists all.)" if len(fatal) > 1 else ""
        raise InputError(f"{fatal[0].detail}{more}")
    if not rows:
        why = " ".join(labelled.notes)
        raise InputError(
            f"{path} holds no slides that the adapter {spec.adapter!r} could use. {why}".rstrip()
        )
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
    path: Path, labelled: LabelTable, findings: Sequence[RowFinding], exclusion: Exclusion | None
) -> tuple[str, ...]:
    """Sentences for the report about rows that were left out, and ids that look wrong."""
    repeated = sum(finding.kind == "repeated" for finding in findings)
    notes = [f"{path.name}: {counted(repeated, 'row')} left out, repeated from above."] if repeated else []
    if exclusion is not None:
        excluded = sum(finding.kind == "excluded" for finding in findings)
        notes.append(f"{exclusion.name} leaves out {counted(excluded, 'slide')}.")
        known = known_ids(labelled)
        _, unused = exclusion.among(known)
        if unused:
            like = suspects_between(unused, known)
            example = next(iter(like), unused[0])
            hint = f" ({example!r} and {like[example]!r} {SUSPECT})" if like else ""
            named = f"{len(unused)} entries of {exclusion.name} name no slide here"
            notes.append(f"{named}, for example {example!r}{hint}.")
    suspicious = [finding.detail for finding in findings if finding.kind == "suspect_id"]
    if suspicious:
        more = f" ({len(suspicious) - 1} more like it.)" if len(suspicious) > 1 else ""
        notes.append(f"{suspicious[0]}{more}")
    return tuple(notes)


def _alone(read: Callable[[Table], LabelTable]) -> Adapter:
    return Adapter(lambda table, _: read(table))


_PLAIN = Adapter(lambda table, spec: read_plain(table, spec.settings), COLUMN_SETTINGS)
_BRACS7 = Adapter(lambda table, spec: read_bracs7(table, spec.settings), ("case_id",))
_STAMP = Adapter(
    lambda table, spec: read_stamp(table, spec.settings, spec.file("slides")),
    ("slides", "slides_sheet", *COLUMN_SETTINGS),
)

ADAPTERS: Mapping[str, Adapter] = {
    "bracs": _BRACS7,
    "bracs3": Adapter(lambda table, spec: read_bracs3(table, spec.settings), ("case_id",)),
    "bracs7": _BRACS7,
    "camelyon16": _alone(read_camelyon16),
    "camelyon17": _alone(read_camelyon17),
    "clam": _PLAIN,
    "csv": _PLAIN,
    "dicom": Adapter(
        lambda table, spec: read_dicom_labels(table, spec.settings, spec.file("slides")),
        ("slides", *COLUMN_SETTINGS),
    ),
    "slideflow": Adapter(lambda table, spec: read_slideflow(table, _columns(spec)), ("label", "centre")),
    "stamp": _STAMP,
    "tcga": Adapter(lambda table, spec: read_tcga(table, _columns(spec)), ("slide_id", "label")),
}
"""Adapter name → how to read that kind of table; ``csv`` is the plain form."""


def _columns(spec: LabelsSpec) -> Mapping[str, str]:
    return {key: value for key, value in spec.settings.items() if key in COLUMN_SETTINGS}
