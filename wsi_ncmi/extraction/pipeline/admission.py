"""Whether a slide is to be extracted here: not if it is done, in other hands, or of another identity."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from wsi_ncmi.core.errors import IdentityConflictError, InputError, JobStoppedError
from wsi_ncmi.encoders import EncoderInfo
from wsi_ncmi.extraction.claims import claim
from wsi_ncmi.extraction.ledger import LedgerRow
from wsi_ncmi.extraction.slide import skipped_row
from wsi_ncmi.extraction.task import SlideTask
from wsi_ncmi.features.leftovers import remove_leftovers
from wsi_ncmi.features.reader import open_features_file, read_identity
from wsi_ncmi.features.schema import difference
from wsi_ncmi.features.storage import check_place, storing

__all__ = ["ALREADY_EXTRACTED", "CLAIMED", "admit", "check_conflicts", "clean_up", "failed_row"]

ALREADY_EXTRACTED = "already extracted"
"""Reason of a row whose file was there."""

CLAIMED = "another process is extracting it"
"""Reason of a row whose slide another live job holds; ask again later."""

_LOG = logging.getLogger(__name__)


def failed_row(task: SlideTask, reason: str, seconds: float = 0.0) -> LedgerRow:
    """The row of a slide that could not be processed."""
    record = task.record
    return LedgerRow(
        slide_id=record.slide_id,
        path=record.path,
        status="failed",
        reason=reason,
        seconds=seconds,
        reader=record.reader,
        mpp=record.mpp_x,
        mpp_source=record.mpp_source,
        features_set=task.features_set,
    )


def check_conflicts(tasks: Sequence[SlideTask], encoder: EncoderInfo) -> None:
    """Refuses a job that would meet files of another identity; nothing is opened but their headers.

    Args:
        tasks: The job.
        encoder: Its encoder.

    Raises:
        IdentityConflictError: Names the first such file, the difference, and how many there are.
    """
    conflicts = []
    for task in tasks:
        if task.overwrite or task.record.problem:
            continue
        path = task.feature_path(encoder.name)
        if differs := _difference(task, encoder, path):
            conflicts.append((path, differs))
    if conflicts:
        raise _conflict(*conflicts[0], len(conflicts))


def clean_up(task: SlideTask, encoder_name: str) -> None:
    """Removes what a dead process left of a slide: temporary files and its claim, as far as it can."""
    if task.record.problem:
        return  # nothing was ever begun
    for file in task.products(encoder_name):
        remove_leftovers(file)
    held = task.claim_path(encoder_name)
    with contextlib.suppress(OSError, JobStoppedError):
        if held.exists():
            with claim(held):
                pass  # a dead process's claim is taken, and released


def admit(
    task: SlideTask, encoder: EncoderInfo, row: LedgerRow, held: contextlib.ExitStack
) -> LedgerRow | None:
    """Claims a slide that is to be extracted.

    Args:
        task: The slide.
        encoder: Its encoder.
        row: The row that the slide has so far.
        held: Takes the claim; it is released when this is closed.

    Returns:
        None when the slide is ours to extract; else its final row.

    Raises:
        IdentityConflictError: A file of another identity is there and ``task.overwrite`` is off.
        JobStoppedError: The output can't be written to.
    """
    files = task.products(encoder.name)
    path = files[0]
    claimed = task.claim_path(encoder.name)
    if skipped := _skip(task, encoder, path, row):
        if claimed.exists():
            clean_up(task, encoder.name)  # its holder was killed between publishing and releasing
        return skipped
    check_place(task.out)
    with storing(path):
        for file in (*files, claimed):
            file.parent.mkdir(parents=True, exist_ok=True)
    check_place(task.out)
    if not held.enter_context(claim(claimed)):
        return replace(row, status="skipped", reason=CLAIMED)
    # Whoever held the claim before us may have finished since we looked.
    if skipped := _skip(task, encoder, path, row):
        return skipped
    for file in files:
        remove_leftovers(file)
    return None


def _difference(task: SlideTask, encoder: EncoderInfo, path: Path) -> str:
    """Where a usable file at ``path`` differs from what this task would write; empty: it doesn't, or none."""
    found = read_identity(path)
    return "" if found is None else difference(found, task.identity(encoder))


def _skip(task: SlideTask, encoder: EncoderInfo, path: Path, row: LedgerRow) -> LedgerRow | None:
    if read_identity(path) is None:
        return None  # nothing there, or damaged and to be made anew
    if differs := _difference(task, encoder, path):
        if task.overwrite:
            return None
        raise _conflict(path, differs, 1)
    try:
        file = open_features_file(path)
    except InputError as error:
        _LOG.warning("%s It is made anew.", error)
        return None
    return skipped_row(row, file, ALREADY_EXTRACTED)


def _conflict(path: Path, differs: str, count: int) -> IdentityConflictError:
    others = f" ({count} files like it)" if count > 1 else ""
    return IdentityConflictError(
        f"{path} holds features of another kind{others}: {differs}; choose another --out, or replace them "
        "with --overwrite."
    )
