"""Predictions tables, ``slide_id, case_id, fold, seed, label, prediction, p_<class>…``, and their labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from wsi_ncmi.core.errors import InputError, counted
from wsi_ncmi.core.tables import read_table
from wsi_ncmi.core.values import SUSPECT, is_empty, parse_number, suspects_between, tidy
from wsi_ncmi.metrics.confusion import SUM_TOLERANCE
from wsi_ncmi.metrics.external_predictions import (
    class_number,
    from_clam,
    from_stamp,
    is_clam,
    is_stamp,
    prediction_files,
)
from wsi_ncmi.slides import SlideIndex

if TYPE_CHECKING:
    import pandas as pd


class LabelRow(Protocol):
    """A labelled slide, such as ``wsi_ncmi.cohorts.CohortRow``."""

    @property
    def slide_id(self) -> str:
        """Name of the slide."""

    @property
    def case_id(self) -> str:
        """The patient."""

    @property
    def label(self) -> str:
        """The class."""

    @property
    def centre(self) -> str:
        """The hospital or ``""``."""


@dataclass(frozen=True)
class PatientRow:
    """A ``LabelRow`` for a table with a row a patient."""

    slide_id: str
    case_id: str
    label: str
    centre: str


def names_by_labels(
    frame: pd.DataFrame, labels: Iterable[LabelRow] | None, path: Path
) -> dict[int, str] | None:
    """Names of CLAM's class numbers, from the slides that the labels know too; None without labels.

    Raises:
        InputError: The labels give one number several names, or several one name.
    """
    if labels is None:
        return None
    seen: dict[int, set[str]] = {}
    for row, number in zip(_rows_of(frame, labels, path), frame["Y"], strict=True):
        if row is not None:
            seen.setdefault(class_number(number, "Y", str(path)), set()).add(row.label)
    for number, found in sorted(seen.items()):
        if len(found) > 1:
            raise InputError(
                f"{path}: the labels call slides of class {number} {' and '.join(sorted(found))}; check that "
                "they belong to this task."
            )
    names = {number: next(iter(found)) for number, found in seen.items()}
    if len(set(names.values())) < len(names):
        raise InputError(
            f"{path}: the labels give one name to several of its classes; check that they belong."
        )
    return names


def _rows_of(frame: pd.DataFrame, labels: Iterable[LabelRow], path: Path) -> list[LabelRow | None]:
    """The label of each row, found with or without the slide's extension; None where there is none."""
    by_slide = {row.slide_id: row for row in labels}
    index = SlideIndex(by_slide)
    found: list[LabelRow | None] = []
    for slide_id in frame["slide_id"]:
        names = index.candidates(slide_id)
        if len(names) > 1:
            raise InputError(
                f"{path}: slide {slide_id!r} could have the label of {' or '.join(map(repr, names))}; write "
                "the slide ids in one way."
            )
        found.append(by_slide[names[0]] if names else None)
    return found


def by_patient(labels: Iterable[LabelRow]) -> list[LabelRow]:
    """Labels of patients, for a table with a row a patient.

    Raises:
        InputError: The slides of a patient differ in label.
    """
    by_case: dict[str, PatientRow] = {}
    for row in labels:
        new = PatientRow(row.case_id, row.case_id, row.label, row.centre)
        if by_case.setdefault(row.case_id, new).label != row.label:
            raise InputError(
                f"The predictions have a row a patient, but the slides of patient {row.case_id!r} have the "
                f"labels {by_case[row.case_id].label!r} and {row.label!r}; give labels of patients."
            )
    return list(by_case.values())


def join_truth(frame: pd.DataFrame, labels: Iterable[LabelRow], path: Path) -> pd.DataFrame:
    """The table with truth, patient and centre from the labels.

    Raises:
        InputError: A slide has no label.
    """
    labels = list(labels)
    found = _rows_of(frame, labels, path)
    rows = [row for row in found if row is not None]
    unknown = [slide_id for slide_id, row in zip(frame["slide_id"], found, strict=True) if row is None]
    if unknown:
        like = suspects_between(unknown, (row.slide_id for row in labels))
        hint = "".join(f" ({a!r} and {b!r} {SUSPECT})" for a, b in list(like.items())[:1])
        raise InputError(
            f"{path}: slide {unknown[0]!r} and {len(unknown) - 1} others have no label{hint}; add them."
        )
    joined = frame.copy()
    joined["label"] = [row.label for row in rows]
    joined["case_id"] = [row.case_id for row in rows]
    if any(row.centre for row in labels):
        joined["centre"] = [row.centre for row in rows]
    return joined


_PREFIX = "p_"


def classes_of(frame: pd.DataFrame) -> tuple[str, ...]:
    """The classes of a predictions table, in the order of its ``p_`` columns."""
    return tuple(str(c)[len(_PREFIX) :] for c in frame.columns if str(c).startswith(_PREFIX))


def read_predictions(
    path: Path,
    *,
    labels: Iterable[LabelRow] | None = None,
    group: str | None = None,
    classes: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Reads and checks a predictions table, ours or that of CLAM or STAMP.

    Args:
        path: A table as ``read_table`` takes it; CLAM's ``fold_<k>.csv`` or the folder of them; STAMP's
            ``patient-preds.csv`` or the folder with ``split-<k>``. Needed in a table of ours: ``slide_id``, a
            ``p_<class>`` for every class, and ``label`` and ``case_id`` unless ``labels`` gives them.
            ``prediction`` defaults to the most probable class, ``fold`` and ``seed`` to 0, also where their
            columns are empty. Rows without probabilities whose ``reason`` says why, as ``predict`` writes
            them, are left out.
        labels: Truth, patient and centre by slide; overrides the table's own.
        group: ``"slide_id"`` = the user says that each slide is a patient of its own.
        classes: CLAM only: names of its classes 0, 1, …; default: those that ``labels`` gives to the same
            slides, or else the numbers.

    Returns:
        Table with the contract's columns (and ``centre`` where known), text as ``str``, probabilities
        float64; ``attrs["notes"]`` are sentences about what was left out or scaled.

    Raises:
        InputError: Names file, row and value.
    """
    labels = None if labels is None else list(labels)
    frame = _read_tables(path)
    columns = list(frame.columns)
    if is_clam(columns):
        names = dict(enumerate(classes)) if classes else names_by_labels(frame, labels, path)
        frame = from_clam(frame, names, str(path))
    elif is_stamp(columns):
        frame = from_stamp(frame)
        labels = None if labels is None else by_patient(labels)
    elif "slide_id" not in columns:
        raise InputError(f"{path} lacks the column 'slide_id' (it has: {', '.join(columns)}).")
    frame = _without_unpredicted(frame, path)
    for column in ("fold", "seed", "prediction", *(("case_id",) if group == "slide_id" else ())):
        if column in frame.columns and frame[column].map(is_empty).all():
            frame = frame.drop(columns=column)
    if labels is not None:
        frame = join_truth(frame, labels, path)
    if group == "slide_id" and "case_id" not in frame.columns:
        frame["case_id"] = frame["slide_id"]
    _fill_in(frame, path)
    if "model_digest" in frame.columns:
        models = frame["model_digest"][~frame["model_digest"].map(is_empty)].nunique()
        if models > 1:
            note = f"The predictions are those of {models} models; the column model_digest tells them apart."
            frame.attrs["notes"] = [*frame.attrs.get("notes", ()), note]
    return check_predictions(frame, source=str(path))


def check_predictions(
    frame: pd.DataFrame, classes: Sequence[str] | None = None, *, source: str = "The predictions table"
) -> pd.DataFrame:
    """Makes sure that a table can be evaluated.

    Args:
        frame: With the contract's columns.
        classes: All classes of the task; default those of the ``p_`` columns.
        source: Its name in errors.

    Returns:
        A copy with ids as ``str``, ``fold`` and ``seed`` as int64, probabilities as float64.

    Raises:
        InputError: A column missing, no rows, a class outside the classes, an empty id, a slide twice in a
            fold and seed, or probabilities that are NaN, outside 0–1 or don't sum to 1 (within 0.001, or what
            rounding each to two or three decimals explains: such rows are scaled to sum to 1).
    """
    names = tuple(classes) if classes is not None else classes_of(frame)
    if len(names) < 2:
        raise InputError(f"{source} needs a column p_<class> for each of at least two classes.")
    columns = [f"{_PREFIX}{name}" for name in names]
    needed = ["slide_id", "case_id", "fold", "seed", "label", "prediction", *columns]
    missing = [name for name in needed if name not in frame.columns]
    if missing:
        raise InputError(f"{source} lacks the column {missing[0]!r} (it has: {', '.join(frame.columns)}).")
    if len(frame) == 0:
        raise InputError(f"{source} has no rows.")
    checked = frame.reset_index(drop=True).copy()
    for column in ("slide_id", "case_id", "label", "prediction"):
        checked[column] = [tidy(str(value)) for value in checked[column]]
        # What the classes are called is a class, whatever it looks like.
        empty = [i for i, value in enumerate(checked[column]) if is_empty(value) and value not in names]
        if empty:
            value = checked[column].iloc[empty[0]]
            said = f" ({value!r} means no value)" if value else ""
            remedy = "; fill it in or give --labels" if column in ("label", "case_id") else ""
            raise InputError(f"{source}, {_row(checked, empty[0])}: the {column!r} is empty{said}{remedy}.")
    for column in ("fold", "seed"):
        numbers = _numbers(checked, column, source)
        broken = np.flatnonzero(numbers != np.round(numbers))
        if len(broken):
            raise InputError(f"{source}, {_row(checked, int(broken[0]))}: {column!r} is not a whole number.")
        checked[column] = numbers.astype(np.int64)
    for column in columns:
        checked[column] = _numbers(checked, column, source)
    _check_classes(checked, names, source)
    _check_probabilities(checked, columns, source)
    twice = np.flatnonzero(checked.duplicated(["slide_id", "fold", "seed"]).to_numpy())
    if len(twice):
        raise InputError(
            f"{source}, {_row(checked, int(twice[0]))}: the slide is twice in this fold and seed."
        )
    for column, what in (("case_id", "belongs to two patients"), ("label", "has two labels")):
        distinct = checked.groupby("slide_id")[column].nunique()
        if (distinct > 1).any():
            raise InputError(f"{source}: slide {distinct.idxmax()!r} {what}; keep one.")
    return checked


def _read_tables(path: Path) -> pd.DataFrame:
    import pandas as pd

    tables = []
    for fold, file in prediction_files(path):
        read = read_table(file)
        columns = [name for name in read.columns if name]
        rows = [[row.values.get(name, "") for name in columns] for row in read.rows]
        table = pd.DataFrame(rows, columns=columns, dtype=str)
        tables.append(table if fold is None else table.assign(fold=str(fold)))
        if set(tables[-1].columns) != set(tables[0].columns):
            raise InputError(f"{file} has other columns than the tables before it; evaluate them one by one.")
    return pd.concat(tables, ignore_index=True)


def _without_unpredicted(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    columns = [f"{_PREFIX}{name}" for name in classes_of(frame)]
    if "reason" not in frame.columns or not columns:
        return frame
    silent = frame[columns].map(is_empty).all(axis=1) & ~frame["reason"].map(is_empty)
    if not silent.any():
        return frame
    first = frame[silent].iloc[0]
    left = frame[~silent].reset_index(drop=True)
    if not len(left):
        raise InputError(f"{path}: no slide has a prediction (the first: {first['reason']}).")
    left.attrs["notes"] = [
        f"{counted(int(silent.sum()), 'slide')} without a prediction left out, such as {first['slide_id']} "
        f"({first['reason']})."
    ]
    return left


def _fill_in(frame: pd.DataFrame, path: Path) -> None:
    if "label" not in frame.columns:
        raise InputError(f"{path} lacks the column 'label'; add it or pass --labels.")
    if "case_id" not in frame.columns:
        raise InputError(
            f"{path} lacks the column 'case_id': intervals need patients; add it, pass --labels, or say with "
            "--group slide_id that each slide is a patient of its own."
        )
    for column in ("fold", "seed"):
        if column not in frame.columns:
            frame[column] = "0"
    names = classes_of(frame)
    if "prediction" not in frame.columns and names:
        p = np.stack([_numbers(frame, f"{_PREFIX}{name}", str(path)) for name in names], axis=1)
        frame["prediction"] = [names[i] for i in p.argmax(axis=1)]


def _numbers(frame: pd.DataFrame, column: str, source: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    import pandas as pd

    values = pd.to_numeric(frame[column], errors="coerce").to_numpy(dtype=np.float64, copy=True)
    for k in np.flatnonzero(np.isnan(values)):  # perhaps a decimal comma
        values[k] = parse_number(str(frame[column].iloc[k]))
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        i = int(bad[0])
        value = frame[column].iloc[i]
        raise InputError(f"{source}, {_row(frame, i)}: {column!r} is {value!r}, not a finite number.")
    return values


def _check_classes(frame: pd.DataFrame, classes: Sequence[str], source: str) -> None:
    for column in ("label", "prediction"):
        bad = np.flatnonzero(~frame[column].isin(classes).to_numpy())
        if len(bad):
            i = int(bad[0])
            raise InputError(
                f"{source}, {_row(frame, i)}: the {column} {frame[column].iloc[i]!r} is not among the "
                f"classes ({', '.join(classes)})."
            )


def _check_probabilities(frame: pd.DataFrame, columns: list[str], source: str) -> None:
    p = frame[columns].to_numpy(dtype=np.float64, copy=True)
    sums = p.sum(axis=1)
    off = np.abs(sums - 1.0)
    allowed = np.full(len(p), SUM_TOLERANCE)
    for decimals in (3, 2):
        rounded = (np.abs(p - np.round(p, decimals)) < 1e-9).all(axis=1)
        allowed[rounded & (off > allowed)] = max(SUM_TOLERANCE, 0.5 * 10.0**-decimals * len(columns) + 1e-9)
    bad = np.flatnonzero((off > allowed) | (p < 0).any(axis=1))
    if len(bad):
        i = int(bad[0])
        raise InputError(
            f"{source}, {_row(frame, i)}: the probabilities are {p[i].tolist()} (sum {p[i].sum():.4g}); each "
            "must lie in 0–1 and they must sum to 1."
        )
    scaled = off > SUM_TOLERANCE
    if scaled.any():
        p[scaled] /= sums[scaled, None]
        frame[columns] = p
        note = f"Rounded probabilities of {counted(int(scaled.sum()), 'row')} were scaled to sum to 1."
        frame.attrs["notes"] = [*frame.attrs.get("notes", ()), note]


def _row(frame: pd.DataFrame, i: int) -> str:
    # Row 1 of the file is the header.
    return f"row {i + 2} (slide {str(frame['slide_id'].iloc[i])!r})"
