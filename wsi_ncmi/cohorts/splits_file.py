"""Splits files: splits.json, CLAM's splits_<i>.csv in both forms, and a plain CSV."""

import re
from pathlib import Path
from typing import Any

from wsi_ncmi import __version__, slides
from wsi_ncmi.cohorts.cohort import Cohort
from wsi_ncmi.cohorts.folds import PARTS, Fold, Splits
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import parse_json, write_json
from wsi_ncmi.core.tables import Table, read_table
from wsi_ncmi.core.values import SUSPECT, suspects_between

SPLITS_SCHEMA = "wsi-ncmi/splits/1"


def write_splits(splits: Splits, path: Path) -> None:
    """Writes splits atomically.

    The file: ``{"schema": "wsi-ncmi/splits/1", "software", **meta, "folds": [{"train": [ids],
    "validation": [ids], "test": [ids]}, …]}`` with ``meta`` as in ``Splits``.
    """
    folds = [{part: list(fold.part(part)) for part in PARTS} for fold in splits.folds]
    write_json(
        path,
        {"schema": SPLITS_SCHEMA, "software": f"wsi-ncmi {__version__}", **splits.meta, "folds": folds},
    )


def read_splits(path: Path, cohort: Cohort | None = None) -> Splits:
    """Reads splits and, given the cohort, makes sure that they belong to it.

    Leaks are not judged here: see ``find_leaks``.

    Args:
        path: A file by ``write_splits``.
        cohort: The labels as they are now, all of them (restrict the splits to slides with features after
            reading).

    Returns:
        The splits; when the labels have changed since they were made, ``meta["warnings"]`` says so.

    Raises:
        InputError: Not such a file, a slide that the cohort doesn't know, or one of its slides in no part.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}).") from error
    except ValueError as error:
        raise InputError(f"{path} is not a splits file: not JSON ({error}).") from error
    if not isinstance(content, dict) or content.get("schema") != SPLITS_SCHEMA:
        found = content.get("schema") if isinstance(content, dict) else None
        raise InputError(f"{path} is not a splits file: its schema is {found!r}, not {SPLITS_SCHEMA!r}.")
    folds = tuple(_read_fold(path, k, fold) for k, fold in enumerate(_list(path, content, "folds")))
    if not folds:
        raise InputError(f"{path} holds no folds.")
    if cohort is not None:
        folds = Splits(folds).spelled_as(cohort.slide_ids).folds
    meta = {key: value for key, value in content.items() if key not in ("schema", "software", "folds")}
    if cohort is not None:
        _check_same_slides(path, folds, cohort)
        if meta.get("labels_sha256") not in (None, cohort.sha256):
            warning = f"The labels have changed since {path.name} was made; the folds may be less balanced."
            meta["warnings"] = [*meta.get("warnings", []), warning]
    return Splits(folds, meta)


def _read_fold(path: Path, k: int, content: Any) -> Fold:
    if not isinstance(content, dict):
        raise InputError(f"{path}: fold {k} is not an object with {', '.join(PARTS)}.")
    return Fold(*(tuple(_list(path, content, part)) for part in PARTS))


def _list(path: Path, content: dict[str, Any], key: str) -> list[Any]:
    value = content.get(key)
    if not isinstance(value, list) or (key != "folds" and not all(isinstance(s, str) for s in value)):
        raise InputError(
            f"{path}: {key!r} is missing or not a list{'' if key == 'folds' else ' of slide ids'}."
        )
    return value


def _check_same_slides(path: Path, folds: tuple[Fold, ...], cohort: Cohort) -> None:
    in_splits = {s for fold in folds for part in PARTS for s in fold.part(part)}
    unknown = sorted(in_splits - set(cohort.slide_ids))
    if unknown:
        alike = suspects_between(unknown, cohort.slide_ids)
        hint = "".join(f" ({name!r} and {own!r} {SUSPECT})" for name, own in list(alike.items())[:1])
        raise InputError(
            f"{path} names slide {unknown[0]!r}{_more(unknown)}, unknown to the labels{hint}; make the "
            "splits again."
        )
    left_out = sorted(set(cohort.slide_ids) - in_splits)
    if left_out:
        raise InputError(
            f"Slide {left_out[0]!r}{_more(left_out)} of the labels is in no part of {path}; make the "
            "splits again."
        )


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


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
        cohort: How ids are spelled; our own files must belong to it.

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
    splits = Splits(tuple(folds), {"kind": "table", "source": path.name, "warnings": []})
    return splits.spelled_as(cohort.slide_ids) if cohort is not None else splits


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
        if not row["slide_id"]:
            raise table.problem(row, "slide_id", "not a slide")
        fold = folds.setdefault(row["fold"], {name: [] for name in PARTS})
        fold[part].append(slides.slide_id_of(row["slide_id"]))
    names = sorted(folds, key=lambda name: (len(name), name))
    return [Fold(*(tuple(folds[name][part]) for part in PARTS)) for name in names]
