"""Splits that others wrote: CLAM's ``splits_<i>.csv`` in both forms, and a plain CSV."""

from __future__ import annotations

import re
from pathlib import Path

from wsi_ncmi import slides
from wsi_ncmi.cohorts.cohort import Cohort
from wsi_ncmi.cohorts.fold import PARTS, Fold, Splits
from wsi_ncmi.cohorts.splits_file import read_splits
from wsi_ncmi.cohorts.table import Table, read_table
from wsi_ncmi.core.errors import InputError

__all__ = ["read_any_splits"]

_PART_NAMES = {"train": "train", "training": "train", "val": "validation", "valid": "validation"}
_PART_NAMES |= {"validation": "validation", "test": "test", "testing": "test"}
_PART_COLUMNS = ("part", "split", "split_info", "set")


def read_any_splits(path: Path, cohort: Cohort | None = None) -> Splits:
    """Reads splits for the audit, whoever wrote them.

    Args:
        path: Our ``splits.json``; a CLAM CSV (unnamed index and ``train,val,test`` holding slide ids,
            ragged,
            or slide ids as index and True/False cells); a plain CSV with ``slide_id`` and ``part`` (or
            ``split``) and perhaps ``fold``; or a folder of CLAM's ``splits_0.csv``, ``splits_1.csv``, ….
        cohort: Given for our own files only to check that they belong to it.

    Raises:
        InputError: None of these, or an unknown part.
    """
    if path.is_dir():
        files = sorted(path.glob("splits_*.csv"), key=lambda file: (len(file.name), file.name))
        files = [file for file in files if re.fullmatch(r"splits_\d+\.csv", file.name)]
        if not files:
            raise InputError(f"{path} holds no splits_<number>.csv files.")
        folds = [fold for file in files for fold in _read_csv(read_table(file))]
    elif path.suffix.lower() == ".json":
        return read_splits(path, cohort)
    else:
        folds = _read_csv(read_table(path))
    return Splits(tuple(folds), {"kind": "table", "source": path.name, "warnings": []})


def _read_csv(table: Table) -> list[Fold]:
    lowered = {name.lower(): name for name in table.columns}
    part_columns = {_PART_NAMES[low]: name for low, name in lowered.items() if low in _PART_NAMES}
    if {"train", "test"} <= set(part_columns):
        return [_clam(table, part_columns)]
    column = next((lowered[name] for name in _PART_COLUMNS if name in lowered), None)
    if column and "slide_id" in table.columns:
        return _plain(table, column)
    raise InputError(
        f"{table.path} is not a splits table: it needs the columns train, val, test (CLAM) or slide_id and "
        f"part (it has: {', '.join(name or '(unnamed)' for name in table.columns)})."
    )


def _clam(table: Table, columns: dict[str, str]) -> Fold:
    parts: dict[str, list[str]] = {part: [] for part in PARTS}
    cells = {row[column].lower() for row in table.rows for column in columns.values()}
    as_flags = bool(cells - {""}) and cells <= {"true", "false", ""}
    for row in table.rows:
        for part, column in columns.items():
            if as_flags and row[column].lower() == "true":
                parts[part].append(slides.slide_id_of(row.first))
            elif not as_flags and row[column]:
                parts[part].append(slides.slide_id_of(row[column]))
    return Fold(*(tuple(parts[part]) for part in PARTS))


def _plain(table: Table, column: str) -> list[Fold]:
    folds: dict[str, dict[str, list[str]]] = {}
    for row in table.rows:
        part = _PART_NAMES.get(row[column].lower())
        if part is None:
            raise table.problem(row, column, "not train, val or test")
        fold = folds.setdefault(row["fold"], {name: [] for name in PARTS})
        fold[part].append(slides.slide_id_of(row["slide_id"]))
    names = sorted(folds, key=lambda name: (len(name), name))
    return [Fold(*(tuple(folds[name][part]) for part in PARTS)) for name in names]
