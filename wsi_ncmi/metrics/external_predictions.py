"""Predictions tables of other tools in the columns of this package: CLAM's ``fold_<k>.csv`` and STAMP's.

CLAM's ``eval.py`` writes ``slide_id, Y, Y_hat, p_0, p_1, …`` with classes as numbers; STAMP writes a row a
patient: ``PATIENT, <target>, pred, <target>_<class>, …, loss`` (``patient-preds.csv``, one in each
``split-<k>`` folder).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from wsi_ncmi.core.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

_PATIENT_COLUMNS = ("PATIENT", "patient", "patient_id", "case_id")


def prediction_files(path: Path) -> list[tuple[int | None, Path]]:
    """The tables of a path with their folds: the file itself, or what a folder of CLAM or STAMP holds.

    Raises:
        InputError: A folder without ``fold_<k>.csv`` or ``split-<k>/patient-preds.csv``.
    """
    if not path.is_dir():
        return [(None, path)]
    found = [
        (_number(file.stem), file) for file in path.glob("fold_*.csv") if re.fullmatch(r"fold_\d+", file.stem)
    ]
    found += [(_number(file.parent.name), file) for file in path.glob("split-*/patient-preds.csv")]
    if not found:
        raise InputError(f"{path} holds neither fold_<k>.csv (CLAM) nor split-<k>/patient-preds.csv (STAMP).")
    return sorted(found)


def is_clam(columns: Sequence[str]) -> bool:
    """True for the columns of CLAM's evaluation."""
    return {"slide_id", "Y", "Y_hat", "p_0", "p_1"} <= set(columns)


def from_clam(frame: pd.DataFrame, names: Mapping[int, str] | None, source: str) -> pd.DataFrame:
    """CLAM's evaluation in our columns.

    Args:
        frame: As read, all text.
        names: Number → class; None keeps the numbers as names.
        source: Its name in errors.

    Raises:
        InputError: A class that isn't a whole number, or has no name.
    """
    numbers = {
        column: [class_number(value, column, source) for value in frame[column]] for column in ("Y", "Y_hat")
    }
    count = sum(1 for column in frame.columns if re.fullmatch(r"p_\d+", str(column)))
    called = names or {i: str(i) for i in range(count)}
    for number in [*range(count), *numbers["Y"], *numbers["Y_hat"]]:
        if number not in called:
            raise InputError(f"{source}: class {number} has no name; name all {count} with --classes a,b,….")
    renamed = frame.drop(columns=["Y", "Y_hat"]).rename(
        columns={f"p_{i}": f"p_{called[i]}" for i in range(count)}
    )
    return renamed.assign(
        label=[called[i] for i in numbers["Y"]], prediction=[called[i] for i in numbers["Y_hat"]]
    )


def is_stamp(columns: Sequence[str]) -> bool:
    """True for the columns of STAMP's predictions."""
    return "slide_id" not in columns and _stamp_target(columns) is not None and _patient(columns) is not None


def from_stamp(frame: pd.DataFrame) -> pd.DataFrame:
    """STAMP's predictions in our columns; a patient's bag counts as one slide named after the patient."""
    columns = [str(column) for column in frame.columns]
    target, patient = _stamp_target(columns), _patient(columns)
    assert target is not None
    assert patient is not None
    prefix = f"{target}_"
    p = {c: f"p_{c[len(prefix) :]}" for c in columns if c.startswith(prefix)}
    renamed = frame[[patient, target, *p]].rename(columns={patient: "case_id", target: "label", **p})
    renamed.insert(0, "slide_id", renamed["case_id"])
    if "pred" in columns:
        renamed["prediction"] = frame["pred"]
    if "fold" in columns:
        renamed["fold"] = frame["fold"]
    return renamed


def _stamp_target(columns: Sequence[str]) -> str | None:
    scores = {
        c: sum(other.startswith(f"{c}_") for other in columns) for c in columns if c not in _PATIENT_COLUMNS
    }
    best = max(scores, key=lambda c: (scores[c], -len(c)), default=None)
    return best if best is not None and scores[best] >= 2 else None


def _patient(columns: Sequence[str]) -> str | None:
    return next((name for name in _PATIENT_COLUMNS if name in columns), None)


def class_number(value: str, column: str, source: str) -> int:
    """The number of a class, which CLAM writes as ``1`` or ``1.0``.

    Raises:
        InputError: It is no whole number.
    """
    if not re.fullmatch(r"\d+(\.0*)?", value.strip()):
        raise InputError(f"{source}: {column} is {value!r}, not the number of a class.")
    return int(float(value))


def _number(name: str) -> int:
    return int(re.sub(r"\D", "", name) or 0)
