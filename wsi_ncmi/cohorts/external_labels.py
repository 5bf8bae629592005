"""Annotation tables of slideflow and STAMP."""

from collections.abc import Mapping
from pathlib import Path

from wsi_ncmi.cohorts.label_table import LabelledRow, LabelTable
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.tables import Table, TableRow, read_table
from wsi_ncmi.core.values import SUSPECT, suspects_between

_NOT_CLASSES = frozenset({"patient", "slide", "site", "dataset", "submitter_id", ""})


def read_slideflow(table: Table, settings: Mapping[str, str]) -> LabelTable:
    """Slides with patient, class and site.

    Source: slideflow's manual, "Annotations": ``patient`` is required; ``slide`` is the file's name without
    extension and, where it is empty, the patient's name serves as the slide's; ``site`` is the one that
    slideflow's site-preserved cross-validation uses.
    """
    table.require(("patient", *settings.values()))
    label = settings.get("label") or _only_class_column(table)
    centre = settings.get("centre") or ("site" if "site" in table.columns else None)
    rows = [
        LabelledRow(
            row,
            slide_id=row["slide"] or row["patient"],
            case_id=row["patient"],
            label=row[label],
            centre=row[centre] if centre else "",
        )
        for row in table.rows
    ]
    return LabelTable(rows)


def _only_class_column(table: Table) -> str:
    candidates = [name for name in table.columns if name not in _NOT_CLASSES]
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise InputError(f"{table.path} has no column of classes beside patient and slide.")
    raise InputError(
        f"{table.path} has several columns that could be the class ({', '.join(candidates)}); choose one, "
        f"such as slideflow:{table.path}?label={candidates[0]}."
    )


_FEATURE_FILES = (".h5", ".hdf5", ".pt")


def read_stamp(table: Table, settings: Mapping[str, str], slide_table: Path | None) -> LabelTable:
    """Slides with patient and class.

    ``stamp:CLINI.csv?slides=SLIDE.csv&label=isMSIH``. STAMP's defaults name the columns ``PATIENT`` and
    ``FILENAME``; newer configurations let a user name others, which ``case_id=`` and ``slide_id=`` do here.
    As in STAMP, patients without a value of the target are left out (a clinical table serves many targets),
    and so are slides of unknown patients; both are counted in the notes.

    Args:
        table: The clinical table.
        settings: ``label`` (required), ``case_id``, ``slide_id`` and ``centre`` name columns,
            ``slides_sheet`` the sheet of a slide table that is a workbook.
        slide_table: The slide table.

    Raises:
        InputError: No slide table or no target was named, a column is missing, a patient is in the clinical
            table twice with different values, or no slide has a value.
    """
    if slide_table is None or "label" not in settings:
        raise InputError(
            f"STAMP's labels need a slide table and a target column, as in "
            f"stamp:{table.path}?slides=SLIDE.csv&label=COLUMN."
        )
    of_slides = read_table(slide_table, settings.get("slides_sheet"))
    case = _column(table, settings.get("case_id"), ("PATIENT", "patient"))
    case_of_slide = _column(of_slides, settings.get("case_id"), ("PATIENT", "patient"))
    name = _column(of_slides, settings.get("slide_id"), ("FILENAME", "filename"))
    label, centre = settings["label"], settings.get("centre")
    table.require((label, *((centre,) if centre else ())))
    patients = _patients(table, case, (label, *((centre,) if centre else ())))
    rows = []
    strangers: list[str] = []
    without_value = 0
    for row in of_slides.rows:
        patient = patients.get(row[case_of_slide])
        if patient is None:
            strangers.append(row[case_of_slide])
        elif not patient[label]:
            without_value += 1
        else:
            rows.append(
                LabelledRow(
                    row,
                    slide_id=_without_feature_extension(row[name]),
                    case_id=row[case_of_slide],
                    label=patient[label],
                    centre=patient[centre] if centre else "",
                )
            )
    notes = []
    if strangers:
        like = next(iter(suspects_between(strangers, patients).items()), None)
        hint = f" ({like[0]!r} there and {like[1]!r} here {SUSPECT})" if like else ""
        notes.append(
            f"{len(strangers)} slides of {slide_table.name} belong to no patient of {table.path.name}{hint}."
        )
    if without_value:
        notes.append(
            f"{without_value} slides have no value of {label!r} in {table.path.name} and are left out."
        )
    return LabelTable(rows, notes=tuple(notes), origin=slide_table)


def _column(table: Table, chosen: str | None, usual: tuple[str, ...]) -> str:
    names = (chosen, *usual) if chosen else usual
    found = next((name for name in names if name in table.columns), None)
    if found is None:
        table.require((names[0],))
    return found or names[0]


def _patients(table: Table, case: str, columns: tuple[str, ...]) -> dict[str, TableRow]:
    patients: dict[str, TableRow] = {}
    for row in table.rows:
        if not row[case]:
            continue
        first = patients.setdefault(row[case], row)
        for column in columns:
            if first[column] != row[column]:
                raise table.problem(
                    row, column, f"but {first[column]!r} in row {first.line} of the same patient"
                )
    return patients


def _without_feature_extension(name: str) -> str:
    for extension in _FEATURE_FILES:
        if name.lower().endswith(extension):
            return name[: -len(extension)]
    return name
