"""The extraction job: a folder of slides to feature files, thumbnails, outlines and a ledger."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from wsi_ncmi.core.config.keywords import takes_settings
from wsi_ncmi.core.errors import counted
from wsi_ncmi.core.files import check_folder, job_folder
from wsi_ncmi.core.progress import NullProgress, ProgressReporter
from wsi_ncmi.core.provenance import write_record
from wsi_ncmi.encoders.encoder_files import encoder_file
from wsi_ncmi.encoders.weights_folder import resolve_weights
from wsi_ncmi.extraction.config import ExtractConfig
from wsi_ncmi.extraction.encoder_grid import other_grid
from wsi_ncmi.slides import write_slides_csv
from wsi_ncmi.workflows.result import JobResult

if TYPE_CHECKING:
    from wsi_ncmi.encoders import EncoderInfo
    from wsi_ncmi.extraction.ledger import LedgerRow
    from wsi_ncmi.extraction.task import SlideTask
    from wsi_ncmi.features.stain import StainTarget

_LOG = logging.getLogger(__name__)
_COPY = "same content as "


@takes_settings("wsi_ncmi.extraction:ExtractConfig", "slides", "out")
def extract(
    config: ExtractConfig,
    progress: ProgressReporter | None = None,
    *,
    slide_ids: Collection[str] | None = None,
    replaced: Collection[str] = (),
    given: Mapping[str, str] | None = None,
    stain: StainTarget | None = None,
    on_encoder: Callable[[EncoderInfo], None] | None = None,
) -> JobResult:
    """Extracts the features of all slides; what is done already is skipped.

    Args:
        config: What and how.
        progress: Told about every slide.
        slide_ids: A round on a growing folder: only these slides, by the ids of the inventory. Those that are
            gone cost nothing, one whose features meet a file of another identity fails alone, and the contact
            sheet is left as it is. None = all.
        replaced: Slides whose features of another identity are replaced.
        given: Path → id of slides of earlier rounds; their rows stay in the ledger.
        stain: What colours are brought to where that is known already, in place of ``config.stain``.
        on_encoder: Called with the encoder before anything is made; may refuse it.

    Returns:
        Paths of ``features``, ``ledger``, ``contact_sheet`` and ``slides``, and with ``@<set>`` those of
        further sets; a failure for every slide that failed.

    Raises:
        InputError: Wrong input, or a feature file of another identity stands in the way: nothing was started.

    Example:
        >>> result = extract("slides", "out", encoder="uni_v1", mpp=0.5)  # doctest: +SKIP
        >>> result.files["features"], result.failures  # doctest: +SKIP
    """
    from wsi_ncmi.extraction.claims import check_conflicts
    from wsi_ncmi.extraction.contact_sheet import write_contact_sheet
    from wsi_ncmi.extraction.disk_space import check_space
    from wsi_ncmi.extraction.execution.local import open_engine
    from wsi_ncmi.extraction.finished import FinishedSlides
    from wsi_ncmi.extraction.known_failures import is_known, read_known_failures, settle
    from wsi_ncmi.extraction.pipeline import Utilisation
    from wsi_ncmi.extraction.planning import (
        check_inputs,
        grids_of,
        list_slides,
        make_tasks,
        with_mask_model,
    )
    from wsi_ncmi.extraction.staging import prepare_stage
    from wsi_ncmi.features.stain import stain_target
    from wsi_ncmi.tissue import SPECIAL_STAIN

    progress = progress or NullProgress()
    encoder_config = resolve_weights(config.encoder, config.weights_dir)
    weights = encoder_file(encoder_config)
    grids = grids_of(config)
    of_grids = {name: other_grid(grid, config.encoder.name) for name, grid in grids.items()}
    for remark in filter(None, of_grids.values()):
        _LOG.warning("extract: %s.", remark)
    stain = stain or stain_target(config.stain)
    settings = config.extraction
    known = read_known_failures(config.known_failures) if config.known_failures is not None else {}
    check_folder(config.out)
    check_inputs(config)
    config = with_mask_model(config)
    if settings.stage is not None:
        prepare_stage(settings.stage)
    # A wrong name or file is told before any slide is opened.
    with open_engine(settings, encoder_config) as engine:
        encoder = engine.encoder
        if weights is not None:
            _LOG.info("Encoder %s: %s, SHA-256 %s.", encoder.name, weights, encoder.weights_sha256)
        if on_encoder is not None:
            on_encoder(encoder)
        records = list_slides(config, progress, given, slide_ids)
        tasks = [
            replace(task, config=replace(task.config, overwrite=True))
            if task.record.slide_id in replaced
            else task
            for task in make_tasks(config, records, stain, slide_ids)
        ]
        finished = FinishedSlides(tasks, encoder)
        before = {index: row for index, task in enumerate(tasks) if (row := finished.row(task)) is not None}
        left = [task for index, task in enumerate(tasks) if index not in before]
        if before:
            _LOG.info(
                "extract: the features of %s were there before and nobody has written to them since; they "
                "aren't read again.", counted(len(before), "slide"),
            )  # fmt: skip
        if slide_ids is None:
            check_conflicts(left, encoder)
        else:
            left = _without_conflicts(left, encoder)
        check_space(left, encoder, refuse=settings.check_space)
        out = job_folder(config.out)
        write_slides_csv(records, out / "slides.csv")
        _record(replace(config, encoder=encoder_config, grid=grids[""]), encoder, stain, of_grids)
        utilisations: list[Utilisation] = []
        ran = iter(
            engine.run(left, progress=progress, on_row=finished.add, on_utilisation=utilisations.append)
        )
    all_rows = (before[index] if index in before else next(ran) for index in range(len(tasks)))
    copies = {record.slide_id: record.duplicate_of for record in records if record.duplicate_of}
    rows = [
        replace(
            _with_remarks(row, copies.get(row.slide_id, ""), of_grids[task.features_set]),
            features_set=task.features_set,
        )
        for row, task in zip(all_rows, tasks, strict=True)
    ]
    rows, remarks = settle(rows, known, [record.slide_id for record in records])
    files = {"slides": out / "slides.csv"}
    present = {record.slide_id for record in records}.union((given or {}).values())
    for name in grids:
        files |= _close(out, encoder.name, name, config.shard, rows, present, copies)
        if slide_ids is None:
            files[f"contact_sheet@{name}".removesuffix("@")] = write_contact_sheet(out, name)
    failures = tuple(
        f"{row.slide_id}{f' ({row.features_set})' if row.features_set else ''}: {row.reason}"
        for row in rows
        if row.status == "failed" and not is_known(row)
    )
    known_here = sum(map(is_known, rows))
    dropped = sum(row.artifact_tiles for row in rows)
    special = len({row.slide_id for row in rows if SPECIAL_STAIN in row.reason})
    if special:
        remarks.append(
            f"Much of what is dense on {counted(special, 'slide')} {SPECIAL_STAIN} and was left out; the "
            "ledger names them and what helps (--set tissue.method=otsu for special stains)."
        )
    return JobResult(
        files=files,
        failures=failures,
        notes=(
            f"{sum(row.status == 'done' for row in rows)} slides done, "
            f"{sum(row.status == 'skipped' for row in rows)} done before, {len(failures)} failed, "
            f"{sum(row.tiles for row in rows)} tiles"
            + (f", {known_here} failed as known" if known_here else "")
            + (f", {dropped} dropped for artefacts" if dropped else "")
            + "".join(
                f"; the encoder was idle {utilisation.idle_share:.0%} of the time"
                for utilisation in utilisations
                if utilisation.tiles
            )
            + ".",
            *remarks,
        ),
    )


def _without_conflicts(tasks: Sequence[SlideTask], encoder: EncoderInfo) -> list[SlideTask]:
    """Tasks that meet features of another identity get that as their problem."""
    from wsi_ncmi.extraction.claims import conflicts

    found = conflicts(tasks, encoder)
    return [
        replace(task, record=replace(task.record, problem=found[task.record.slide_id]))
        if task.record.slide_id in found
        else task
        for task in tasks
    ]


def _record(
    config: ExtractConfig, encoder: EncoderInfo, stain: StainTarget | None, of_grids: Mapping[str, str]
) -> None:
    """Writes ``run.json``."""
    write_record(
        config.out / "run.json",
        config={
            "encoder": asdict(config.encoder),
            "tissue": config.tissue.to_json(),
            "artifacts": asdict(config.artifacts),
            "annotations": None if config.annotations is None else config.annotations.name,
            "grid": asdict(config.grid),
            "further_mpp": config.further_mpp,
            # The reference image is known by its hash, never by its path.
            "stain": "none" if stain is None else stain.identity,
            # The address of a cluster names a host, the stage folder is a path of this machine.
            "extraction": {**asdict(config.extraction), "ray_address": None, "stage": None},
            "default_mpp": config.default_mpp,
            "shard": config.shard,
        },
        encoder=encoder.to_json(),
        workers=config.extraction.workers,
        warnings=list(filter(None, of_grids.values())),
    )


def _close(
    out: Path,
    encoder_name: str,
    features_set: str,
    shard: tuple[int, int] | None,
    rows: Sequence[LedgerRow],
    present: set[str],
    copies: Mapping[str, str],
) -> dict[str, Path]:
    """Writes the ledger of one set of features; gives its files by name.

    Rows of earlier jobs on slides that are ``present`` stay: a job on a part of them forgets nothing. What is
    a copy of what (``copies``) is said of the files that are there now.
    """
    from wsi_ncmi.extraction.ledger import merge_rows, read_or_rebuild, write_ledger
    from wsi_ncmi.features.paths import feature_folder, ledger_path

    ledger = ledger_path(out, features_set, shard)
    kept = read_or_rebuild(ledger, out / "ledger.jsonl", features_set) if ledger.is_file() else ()
    earlier = [
        _with_remarks(row, copies.get(row.slide_id, ""), "") for row in kept if row.slide_id in present
    ]
    write_ledger(merge_rows(earlier, (row for row in rows if row.features_set == features_set)), ledger)
    suffix = f"@{features_set}" if features_set else ""
    return {
        f"features{suffix}": feature_folder(out, encoder_name, features_set),
        f"ledger{suffix}": ledger,
    }


def _with_remarks(row: LedgerRow, original: str, grid_remark: str) -> LedgerRow:
    own = (part for part in row.reason.split("; ") if not part.startswith(_COPY))
    remarks = (
        *own,
        f"{_COPY}{original}" if original else "",
        grid_remark if row.status != "failed" else "",
    )
    return replace(row, reason="; ".join(filter(None, remarks)))
