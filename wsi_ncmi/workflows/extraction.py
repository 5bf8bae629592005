"""The extraction job: a folder of slides to feature files, thumbnails, outlines and a ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from wsi_ncmi.core.files import ensure_folder
from wsi_ncmi.core.progress import NullProgress, ProgressReporter
from wsi_ncmi.encoders.config import EncoderConfig
from wsi_ncmi.slides import SlideRecord, take_inventory, write_slides_csv
from wsi_ncmi.workflows.extraction_request import ExtractionRequest
from wsi_ncmi.workflows.known_slides import check_unchanged, known_slides
from wsi_ncmi.workflows.records import write_record
from wsi_ncmi.workflows.result import JobResult
from wsi_ncmi.workflows.slide_choice import choose_slides
from wsi_ncmi.workflows.slide_tasks import check_annotation_folder, grids_of, make_tasks
from wsi_ncmi.workflows.space import check_space
from wsi_ncmi.workflows.weights_folder import resolve_weights

if TYPE_CHECKING:
    from wsi_ncmi.encoders import EncoderInfo
    from wsi_ncmi.extraction.ledger import LedgerRow
    from wsi_ncmi.features.stain import StainTarget

__all__ = ["extract"]


def extract(request: ExtractionRequest, progress: ProgressReporter | None = None) -> JobResult:
    """Extracts the features of all slides; what is done already is skipped.

    Args:
        request: What and how.
        progress: Told about every slide.

    Returns:
        Paths of ``features``, ``ledger``, ``contact_sheet`` and ``slides``, and with ``@<set>`` those of
        further sets; a failure for every slide that failed.

    Raises:
        InputError: Wrong input, or a feature file of another identity stands in the way: nothing was started.
    """
    from wsi_ncmi.extraction.execution.engines import open_engine
    from wsi_ncmi.extraction.extraction import check_conflicts
    from wsi_ncmi.extraction.pipeline import Load
    from wsi_ncmi.features.stain import stain_target

    progress = progress or NullProgress()
    encoder_options = resolve_weights(request.encoder, request.weights_dir)
    grids_of(request)
    stain = request.stain_target or stain_target(request.stain)
    settings = request.extraction
    # A wrong name or file is told before any slide is opened.
    with open_engine(settings.engine, encoder_options, address=settings.ray_address) as engine:
        encoder = engine.card
        out = ensure_folder(request.out)
        records = _inventory(request, progress)
        chosen = choose_slides(records, request)
        if request.inventory is not None:
            check_unchanged(chosen, request.slides, request.inventory)
        write_slides_csv(records, out / "slides.csv")
        check_annotation_folder(request.annotations, records)
        tasks = make_tasks(request, chosen, out, stain)
        check_conflicts(tasks, encoder)
        check_space(tasks, encoder, refuse=settings.check_space)
        _record(request, encoder_options, encoder, stain)
        loads: list[Load] = []
        ran = engine.run(
            tasks,
            workers=settings.workers,
            timeout_s=settings.timeout_per_slide,
            buffer_mib=settings.buffer_mib,
            progress=progress,
            on_load=loads.append,
        )
    copies = {record.slide_id: record.duplicate_of for record in chosen if record.duplicate_of}
    rows = [
        replace(_with_copy(row, copies.get(row.slide_id, "")), features_set=task.features_set)
        for row, task in zip(ran, tasks, strict=True)
    ]
    files = {"slides": out / "slides.csv"}
    present = {record.slide_id for record in records}
    for name in grids_of(request):
        files |= _close(out, encoder.name, name, request.shard, rows, present)
    failures = tuple(
        f"{row.slide_id}{f' ({row.features_set})' if row.features_set else ''}: {row.reason}"
        for row in rows
        if row.status == "failed"
    )
    dropped = sum(row.artifact_tiles for row in rows)
    return JobResult(
        files=files,
        failures=failures,
        notes=(
            f"{sum(row.status == 'done' for row in rows)} slides done, "
            f"{sum(row.status == 'skipped' for row in rows)} done before, {len(failures)} failed, "
            f"{sum(row.tiles for row in rows)} tiles"
            + (f", {dropped} dropped for artefacts" if dropped else "")
            + "".join(
                f"; the encoder was idle {load.idle_share:.0%} of the time" for load in loads if load.tiles
            )
            + ".",
        ),
    )


def _inventory(request: ExtractionRequest, progress: ProgressReporter) -> tuple[SlideRecord, ...]:
    if request.inventory is not None:
        return known_slides(request)
    return take_inventory(
        request.slides, mpp_table=request.mpp_table, default_mpp=request.default_mpp, progress=progress
    )


def _record(
    request: ExtractionRequest, options: EncoderConfig, encoder: EncoderInfo, stain: StainTarget | None
) -> None:
    """Writes ``run.json``."""
    write_record(
        request.out / "run.json",
        config={
            "encoder": asdict(options),
            "tissue": asdict(request.tissue),
            "artifacts": asdict(request.artifacts),
            "annotations": None if request.annotations is None else request.annotations.name,
            "grid": asdict(request.grid),
            "further_mpp": request.further_mpp,
            # The reference image is known by its hash, never by its path.
            "stain": "none" if stain is None else stain.identity,
            # The address of a cluster names a host.
            "extraction": {**asdict(request.extraction), "ray_address": None},
            "default_mpp": request.default_mpp,
            "shard": request.shard,
        },
        encoder=encoder.to_json(),
        workers=request.extraction.workers,
    )


def _close(
    out: Path,
    encoder_name: str,
    features_set: str,
    shard: tuple[int, int] | None,
    rows: Sequence[LedgerRow],
    present: set[str],
) -> dict[str, Path]:
    """Writes the ledger and the contact sheet of one set of features; gives its files by name."""
    from wsi_ncmi.extraction.contact_sheet import write_contact_sheet
    from wsi_ncmi.extraction.ledger import merge_rows, read_ledger, write_ledger
    from wsi_ncmi.features.paths import feature_folder, ledger_path

    ledger = ledger_path(out, features_set, shard)
    # Rows of earlier jobs on slides that are still there stay: a job on a part of them forgets nothing.
    earlier = [row for row in read_ledger(ledger) if row.slide_id in present] if ledger.is_file() else []
    write_ledger(merge_rows(earlier, (row for row in rows if row.features_set == features_set)), ledger)
    suffix = f"@{features_set}" if features_set else ""
    return {
        f"features{suffix}": feature_folder(out, encoder_name, features_set),
        f"ledger{suffix}": ledger,
        f"contact_sheet{suffix}": write_contact_sheet(out, features_set),
    }


def _with_copy(row: LedgerRow, original: str) -> LedgerRow:
    if not original:
        return row
    same = f"same content as {original}"
    return replace(row, reason=f"{row.reason}; {same}" if row.reason else same)
