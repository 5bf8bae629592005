"""Removing what an output folder no longer needs, by kind and age; by default it only says what would go."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from wsi_ncmi.core.config import configclass
from wsi_ncmi.core.errors import InputError, counted
from wsi_ncmi.core.files import OUTPUT_MARKER, TEMPORARY_SUFFIX
from wsi_ncmi.core.leftovers import is_leftover
from wsi_ncmi.core.provenance import read_record
from wsi_ncmi.workflows.result import JobResult

_CLAIMS = ".claims"
_PATTERNS = {
    "temporary": (f"**/.*{TEMPORARY_SUFFIX}", f"features/*/{_CLAIMS}/*"),
    "quarantine": ("features/*/quarantine/*",),
    "history": ("history/*",),
    "features": ("features/*/*.h5", "tissue*/*", "thumbnails*/*"),
    "predictions": (
        "slides/*", "answers/*", "attention/*", "heatmaps/*", "dicom/*", "dicom-with-patient/*", "shadow/*",
    ),
    "logs": ("ledger.jsonl",),
}  # fmt: skip
_DAY_S = 86400.0

Kind = Literal["temporary", "quarantine", "history", "features", "predictions", "logs"]


@configclass
class CleanConfig:
    """What to remove from an output folder.

    Attributes:
        out: Output folder of extract, run or predict.
        kinds: What to remove: ``temporary`` (of killed jobs), ``quarantine`` (feature files found bad),
            ``history`` (earlier predictions); and, only when named, ``features``, ``predictions`` (each
            slide's files, not the tables) and ``logs``.
        older_than: Days since the last change, at least 1.
        yes: Remove it; without, nothing is touched.
    """

    out: Path
    kinds: tuple[Kind, ...] = ("temporary", "quarantine", "history")
    older_than: Annotated[float, Field(ge=1)] = 30.0
    yes: bool = False


@dataclass(frozen=True)
class _Item:
    kind: str
    path: Path
    size: int
    changed_s: float


def clean(config: CleanConfig) -> JobResult:
    """Removes old files of some kinds, or says which they are.

    Links are neither followed nor removed, and the audit trail and the tables of all slides always stay.

    Args:
        config: What, how old, and whether to do it.

    Returns:
        Notes: the sum of each kind, then each item; a failure for each that can't be removed.

    Raises:
        InputError: The folder is no output of this program.
    """
    out = config.out
    if not _is_ours(out):
        raise InputError(
            f"{out} is no output folder of wsi-ncmi (it has neither {OUTPUT_MARKER} nor a record of a job); "
            "nothing in it is touched."
        )
    before_s = time.time() - config.older_than * _DAY_S
    items = [item for kind in dict.fromkeys(config.kinds) for item in _items(out, kind, before_s)]
    failures = []
    if config.yes:
        for item in items:
            try:
                shutil.rmtree(item.path) if item.path.is_dir() else item.path.unlink(missing_ok=True)
            except OSError as error:
                failures.append(f"{item.path.relative_to(out).as_posix()}: {error.strerror or error}")
    did = "removed" if config.yes else "would go"
    notes = [_sum(kind, [item for item in items if item.kind == kind], did) for kind in config.kinds]
    if {"features", "predictions"} & set(config.kinds):
        notes.append(
            "The next job on this folder makes features and predictions again of slides that are still "
            "there; for the others its tables have no answer any more."
        )
    if not config.yes:
        notes.append("Nothing was touched; --yes removes it.")
    notes += [
        f"{item.path.relative_to(out).as_posix()}: {_megabytes(item.size)}, {_date(item.changed_s)}"
        for item in items
    ]
    return JobResult({}, tuple(failures), tuple(notes))


def _is_ours(out: Path) -> bool:
    if (out / OUTPUT_MARKER).is_file():
        return True
    try:
        return any(read_record(out / name) for name in ("run.json", "predict.json"))
    except InputError:
        return False


def _items(out: Path, kind: str, before_s: float) -> Iterator[_Item]:
    for pattern in _PATTERNS[kind]:
        for path in sorted(out.glob(pattern)):
            parts = path.relative_to(out).parts
            if any(out.joinpath(*parts[:depth]).is_symlink() for depth in range(1, len(parts) + 1)):
                continue
            if path.suffix == TEMPORARY_SUFFIX and not is_leftover(path):
                continue  # somebody writes it
            if kind != "temporary" and path.name.startswith("."):
                continue
            try:
                stats = [path.lstat(), *(each.lstat() for each in _below(path))]
            except FileNotFoundError:  # gone meanwhile
                continue
            changed_s = max(stat.st_mtime for stat in stats)
            if changed_s < before_s:
                yield _Item(kind, path, sum(stat.st_size for stat in stats), changed_s)


def _below(path: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(path):  # follows no links
        yield from (Path(folder) / name for name in names)


def _sum(kind: str, items: list[_Item], did: str) -> str:
    if not items:
        return f"{kind}: nothing that old."
    size, oldest = sum(item.size for item in items), min(item.changed_s for item in items)
    count = counted(len(items), "item")
    return f"{kind}: {count} {did}, {_megabytes(size)}, the oldest of {_date(oldest)}."


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _date(moment_s: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(moment_s))
