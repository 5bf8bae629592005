"""Packing a cohort into one file, for ``wsi-ncmi convert --to packed``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from wsi_ncmi.core.errors import InputError, SlideError
from wsi_ncmi.core.files import ensure_folder
from wsi_ncmi.core.progress import NullProgress, ProgressReporter
from wsi_ncmi.workflows.result import JobResult

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from wsi_ncmi.extraction.ledger import LedgerRow
    from wsi_ncmi.features.interchange import FeatureSet
    from wsi_ncmi.workflows.conversion import ConversionRequest

__all__ = ["PACKED_NAME", "pack"]

PACKED_NAME = "bags.npz"


def pack(
    request: ConversionRequest, source: FeatureSet, ledger_name: str, progress: ProgressReporter | None
) -> JobResult:
    """Packs all slides that can be read (and have a label, where labels are given) into one file.

    Every slide is read twice, first to prove it and to count, then to write: so the file is whole whatever
    its size, and never more than one slide is in memory.

    Raises:
        InputError: The file is there already, or nothing is left to pack.
        JobStoppedError: The disk is full or can't be written to.
    """
    from wsi_ncmi.extraction.ledger import LedgerRow, write_ledger
    from wsi_ncmi.features.interchange.bag import to_half
    from wsi_ncmi.features.interchange.packed import PackedColumns, write_packed

    out = request.out if request.out.suffix == ".npz" else request.out / PACKED_NAME
    ensure_folder(out.parent)
    if out.exists() and not request.overwrite:
        raise InputError(f"{out} is there already; give --overwrite to replace it, or another --out.")
    columns = _labels(request, source)
    rows: list[LedgerRow] = []
    lengths: dict[str, int] = {}
    placed = True
    width = 0

    def features(slide_id: str) -> NDArray[np.float16]:
        return to_half(source.features(slide_id), source.where(slide_id))[0]

    def coords(slide_id: str) -> NDArray[np.int64]:
        found = source.bag(slide_id).coords
        assert found is not None
        return found

    with (progress or NullProgress()).task("pack", 2 * len(source.slide_ids), "slides") as task:
        for slide_id in source.slide_ids:
            started = time.monotonic()
            where = source.where(slide_id)
            told = where.name
            if columns is not None and slide_id not in columns:
                rows.append(LedgerRow(slide_id, told, "skipped", "no label"))
                continue
            try:
                bag = source.bag(slide_id)
                half, error = to_half(bag.features, where)
            except SlideError as problem:
                rows.append(LedgerRow(slide_id, told, "failed", str(problem)))
                continue
            finally:
                task.advance(1, note=slide_id)
            placed = placed and bag.coords is not None
            lengths[slide_id], width = len(half), half.shape[1]
            reason = f"rounded to float16, relative error {error:.1e}" if error else ""
            seconds = time.monotonic() - started
            rows.append(LedgerRow(slide_id, told, "done", reason, len(half), 0, seconds))
        if not lengths:
            raise InputError(
                f"No slide of {source.path} can be packed: {rows[0].reason if rows else 'none is there'}"
            )

        def counted(slide_id: str) -> NDArray[np.float16]:
            task.advance(1, note=slide_id)
            return features(slide_id)

        names = tuple(lengths)
        texts = {}
        if columns is not None:
            texts = {key: [columns[s][key] for s in names] for key in next(iter(columns.values()))}
        packed = PackedColumns(names, tuple(lengths.values()), texts, source.encoder() or request.encoder)
        write_packed(out, packed, width, counted, coords if placed else None)
    named = out.name == PACKED_NAME
    ledger = out.with_name(ledger_name if named else f"{out.stem}.{ledger_name}")
    write_ledger(rows, ledger)
    failures = tuple(f"{row.slide_id}: {row.reason}" for row in rows if row.status == "failed")
    left = sum(row.status == "skipped" for row in rows)
    notes = [f"{len(names)} slides packed."]
    if left:
        notes.append(f"{left} slides have no label and were left out.")
    if not placed:
        notes.append("Not all slides have coordinates in pixels, so the file has none.")
    return JobResult({"features": out, "ledger": ledger}, failures, tuple(notes))


def _labels(request: ConversionRequest, source: FeatureSet) -> dict[str, dict[str, str]] | None:
    """Columns by slide, from the table given or from the source itself; None where neither has labels."""
    from wsi_ncmi.cohorts import read_labels
    from wsi_ncmi.slides import slide_id_of

    if request.labels is None:
        own = source.labels()
        return {s: {"label": own[s]} for s in source.slide_ids if s in own} if own else None
    cohort = read_labels(request.labels, group=request.group)
    by_id = {row.slide_id: row for row in cohort.rows}
    found: dict[str, dict[str, str]] = {}
    for slide_id in source.slide_ids:
        row = by_id.get(slide_id) or by_id.get(slide_id_of(slide_id))
        if row is not None:
            found[slide_id] = {"label": row.label, "centre": row.centre}
            if not cohort.case_id_assumed:
                found[slide_id]["case_id"] = row.case_id
    if not found:
        raise InputError(f"None of the slides in {source.path} has a label in {Path(request.labels).name}.")
    return found
