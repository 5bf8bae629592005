"""Labels of DICOM slides by what an information system knows of them: container, series or study."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from wsi_ncmi import slides
from wsi_ncmi.cohorts.label_table import LabelledRow, LabelTable
from wsi_ncmi.core.errors import InputError, counted
from wsi_ncmi.core.tables import Table
from wsi_ncmi.core.values import SUSPECT, suspects_between

_KEYS = ("container_id", "series_uid", "study_uid")


def read_dicom_labels(table: Table, settings: Mapping[str, str], inventory: Path | None) -> LabelTable:
    """Slides that rows name by container, series or study; a study's row is about all its slides.

    ``dicom:LABELS.csv?slides=SLIDES.csv``. The patients are the pseudonyms of the inventory, or where it has
    none (or ``case_id=COLUMN`` says so) those of the table.

    Args:
        table: A column ``container_id``, ``series_uid`` or ``study_uid`` (``slide_id`` in the settings names
            another that holds such ids), and ``label``.
        settings: ``slide_id``, ``label``, ``case_id`` and ``centre`` name columns.
        inventory: What ``wsi-ncmi inventory`` wrote of the slides.

    Raises:
        InputError: No inventory was named, it holds no DICOM slides, or a column is missing.
    """
    if inventory is None:
        raise InputError(
            f"Labels of DICOM slides need the inventory of these, as in dicom:{table.path}?slides=SLIDES.csv."
        )
    records = [record for record in slides.read_slides_csv(inventory) if record.series_uid]
    if not records:
        raise InputError(
            f"{inventory} knows no DICOM slides by container or series; write it again with wsi-ncmi "
            "inventory."
        )
    key = settings.get("slide_id") or next((name for name in _KEYS if name in table.columns), _KEYS[0])
    label, centre = settings.get("label", "label"), settings.get("centre")
    pseudonymous = "case_id" not in settings and any(record.case_id for record in records)
    case = settings.get("case_id") or ("case_id" if "case_id" in table.columns else None)
    named = () if pseudonymous or case is None else (case,)
    table.require((key, label, *named, *((centre,) if centre else ())))
    of_id: dict[str, list[slides.SlideRecord]] = defaultdict(list)
    for record in records:
        for name in {record.container_id, record.series_uid, record.study_uid} - {""}:
            of_id[name].append(record)
    rows: list[LabelledRow] = []
    strangers = []
    for row in table.rows:
        found = of_id.get(row[key], [])
        if not found:
            strangers.append(row[key])
        for record in found:
            patient = record.case_id if pseudonymous else row[case] if case else None
            rows.append(LabelledRow(row, record.slide_id, patient, row[label], row[centre] if centre else ""))
    notes = []
    if strangers:
        like = next(iter(suspects_between(strangers, of_id).items()), None)
        hint = f" ({like[0]!r} there and {like[1]!r} here {SUSPECT})" if like else f" ({strangers[0]!r})"
        notes.append(
            f"{counted(len(strangers), 'row')} of {table.path.name} name no slide of {inventory.name}{hint}."
        )
    problem = ""
    if not pseudonymous and case is None:
        problem = f"has no column 'case_id', and {inventory.name} no pseudonyms (inventory --dicom-patients)"
    return LabelTable(rows, case_problem=problem, notes=tuple(notes))
