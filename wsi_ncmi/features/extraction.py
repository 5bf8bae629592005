"""One slide from file to feature file; whatever happens to it ends in a ledger row."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from wsi_ncmi.encoders import Encoder
from wsi_ncmi.errors import IdentityConflictError, InputError, JobStoppedError, WsiNcmiError
from wsi_ncmi.features.claims import claim
from wsi_ncmi.features.embedding import embed_slide
from wsi_ncmi.features.ledger import LedgerRow
from wsi_ncmi.features.paths import remove_leftovers
from wsi_ncmi.features.preparation import prepare_slide
from wsi_ncmi.features.publishing import done_row, publish_slide, skipped_row
from wsi_ncmi.features.reader import open_features_file, read_identity
from wsi_ncmi.features.schema import difference
from wsi_ncmi.features.storage import storing
from wsi_ncmi.features.task import SlideTask
from wsi_ncmi.slides import open_slide

__all__ = ["ALREADY_EXTRACTED", "CLAIMED", "check_conflicts", "clean_up", "extract_slide", "failed_row"]

ALREADY_EXTRACTED = "already extracted"
"""Reason of a row whose file was there."""

CLAIMED = "another process is extracting it"
"""Reason of a row whose slide another live job holds; ask again later."""

_LOG = logging.getLogger(__name__)


def check_conflicts(tasks: Sequence[SlideTask], encoder: Encoder) -> None:
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
    )


def clean_up(task: SlideTask, encoder_name: str) -> None:
    """Removes what a dead process left of a slide: temporary files and its claim, as far as it can."""
    for file in task.products(encoder_name):
        remove_leftovers(file)
    held = task.claim_path(encoder_name)
    with contextlib.suppress(OSError, JobStoppedError):
        if held.exists():
            with claim(held):
                pass  # a dead process's claim is taken, and released


def extract_slide(task: SlideTask, encoder: Encoder, *, batch_size: int = 32) -> LedgerRow:
    """Extracts one slide: tissue, tiles, embeddings, feature file, outline, thumbnail.

    Args:
        task: What to do.
        encoder: The encoder.
        batch_size: Tiles handed to the encoder at a time.

    Returns:
        The slide's ledger row. A slide that can't be processed is ``failed`` with the reason; a slide without
        tissue is ``done`` with 0 tiles; one that is there already is ``skipped``.

    Raises:
        IdentityConflictError: A file of another identity is there and ``task.overwrite`` is off.
        JobStoppedError: The output can't be written to (disk full, read-only, gone).
    """
    started = time.monotonic()
    record = task.record
    row = failed_row(task, record.problem)
    if not record.problem:
        try:
            row = _claim_and_extract(task, encoder, row, batch_size)
        except (IdentityConflictError, JobStoppedError):
            raise
        except WsiNcmiError as error:
            row = replace(row, reason=str(error))
        except Exception as error:
            _LOG.exception("Slide %s: internal error", record.slide_id)
            row = replace(row, reason=f"internal error {type(error).__name__}: {error}")
    return replace(row, seconds=round(time.monotonic() - started, 3))


def _claim_and_extract(task: SlideTask, encoder: Encoder, row: LedgerRow, batch_size: int) -> LedgerRow:
    files = task.products(encoder.name)
    path = files[0]
    if skipped := _skip(task, encoder, path, row):
        if task.claim_path(encoder.name).exists():
            clean_up(task, encoder.name)  # its holder was killed between publishing and releasing
        return skipped
    held = task.claim_path(encoder.name)
    with storing(path):
        for file in (*files, held):
            file.parent.mkdir(parents=True, exist_ok=True)
    with claim(held) as ours:
        if not ours:
            return replace(row, status="skipped", reason=CLAIMED)
        # Whoever held the claim before us may have finished since we looked.
        if skipped := _skip(task, encoder, path, row):
            return skipped
        for file in files:
            remove_leftovers(file)
        return _extract(task, encoder, row, batch_size)


def _extract(task: SlideTask, encoder: Encoder, row: LedgerRow, batch_size: int) -> LedgerRow:
    with open_slide(task.slide_path) as slide:
        prepared = prepare_slide(task, slide)
        embedded = embed_slide(prepared, slide, encoder, batch_size=batch_size)
    publish_slide(prepared, embedded, encoder)
    return done_row(row, embedded)


def _difference(task: SlideTask, encoder: Encoder, path: Path) -> str:
    """Where a usable file at ``path`` differs from what this task would write; empty: it doesn't, or none."""
    found = read_identity(path)
    return "" if found is None else difference(found, task.identity(encoder))


def _skip(task: SlideTask, encoder: Encoder, path: Path, row: LedgerRow) -> LedgerRow | None:
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
