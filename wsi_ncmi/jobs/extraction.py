"""The extraction job: a folder of slides to feature files, thumbnails, outlines and a ledger."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from wsi_ncmi.encoders.options import EncoderOptions
from wsi_ncmi.errors import InputError
from wsi_ncmi.features.stain.options import StainOptions
from wsi_ncmi.files import ensure_folder
from wsi_ncmi.jobs.config import ExtractionOptions, JobConfig
from wsi_ncmi.jobs.known_slides import check_unchanged, known_slides
from wsi_ncmi.jobs.records import write_record
from wsi_ncmi.jobs.result import JobResult
from wsi_ncmi.jobs.slide_choice import choose_slides
from wsi_ncmi.jobs.slide_tasks import check_annotation_folder, grids_of, make_tasks
from wsi_ncmi.jobs.space import check_space
from wsi_ncmi.progress import NullProgress, ProgressReporter
from wsi_ncmi.slides import SlideRecord, take_inventory, write_slides_csv
from wsi_ncmi.tiling import GridOptions
from wsi_ncmi.tissue import ArtifactOptions, TissueOptions

if TYPE_CHECKING:
    from wsi_ncmi.features import LedgerRow
    from wsi_ncmi.features.stain import StainTarget
    from wsi_ncmi.scale.encoder_card import EncoderCard

__all__ = ["ExtractionRequest", "extract", "resolve_weights"]

WEIGHTS_VARIABLE = "WSI_NCMI_WEIGHTS"


@dataclass(frozen=True)
class ExtractionRequest:
    """What to extract, and how.

    Attributes:
        slides: Folder of slides, or one slide.
        out: Output folder.
        encoder: Encoder options.
        tissue: Tissue options.
        grid: Grid options.
        extraction: Processes and time limit.
        mpp_table: CSV of resolutions by slide.
        default_mpp: Resolution where nothing else gives it.
        only: CSV with a column ``slide_id``: only these slides.
        slide_ids: Only these slides, by the ids of the inventory; None = all.
        shard: ``(i, n)``: every n-th slide from the i-th (1-based), for job arrays.
        overwrite: Replace feature files of another identity.
        weights_dir: Folder of encoder weights.
        artifacts: What happens to tiles with artefacts.
        annotations: Folder of annotations, a file a slide.
        stain: Stain normalisation.
        stain_target: What colours are brought to where that is known already, in place of ``stain``.
        further_mpp: Further resolutions in µm per pixel, each a set of features of its own.
        inventory: Table that ``wsi-ncmi inventory`` wrote of ``slides``; None looks at them anew.
    """

    slides: Path
    out: Path
    encoder: EncoderOptions
    tissue: TissueOptions
    grid: GridOptions
    extraction: ExtractionOptions
    mpp_table: Path | None = None
    default_mpp: float | None = None
    only: Path | None = None
    slide_ids: frozenset[str] | None = None
    shard: tuple[int, int] | None = None
    overwrite: bool = False
    weights_dir: Path | None = None
    artifacts: ArtifactOptions = field(default_factory=ArtifactOptions)
    annotations: Path | None = None
    stain: StainOptions = field(default_factory=StainOptions)
    stain_target: StainTarget | None = None
    further_mpp: tuple[float, ...] = ()
    inventory: Path | None = None

    @classmethod
    def of_config(
        cls,
        config: JobConfig,
        slides: Path,
        out: Path,
        *,
        only: Path | None = None,
        shard: tuple[int, int] | None = None,
        overwrite: bool = False,
        inventory: Path | None = None,
    ) -> ExtractionRequest:
        """The extraction that a job's configuration asks for, of these slides and into this folder."""
        return cls(
            slides=slides,
            out=out,
            encoder=config.encoder,
            tissue=config.tissue,
            grid=config.grid,
            extraction=config.extraction,
            mpp_table=config.mpp_table,
            default_mpp=config.default_mpp,
            only=only,
            shard=shard,
            overwrite=overwrite,
            weights_dir=config.weights_dir,
            artifacts=config.artifacts,
            annotations=config.annotations,
            stain=config.stain,
            further_mpp=config.further_mpp,
            inventory=inventory,
        )


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
    from wsi_ncmi.features import check_conflicts
    from wsi_ncmi.features.engine import Load
    from wsi_ncmi.features.stain import stain_target
    from wsi_ncmi.scale import open_engine

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
    request: ExtractionRequest, options: EncoderOptions, encoder: EncoderCard, stain: StainTarget | None
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
        encoder=asdict(encoder),
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
    from wsi_ncmi.features import merge_rows, read_ledger, write_contact_sheet, write_ledger
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


def resolve_weights(encoder: EncoderOptions, weights_dir: Path | None) -> EncoderOptions:
    """Fills in the weights folder for an encoder that takes weights and was given none.

    ``weights_dir`` comes first, then the environment variable ``WSI_NCMI_WEIGHTS``; a folder without weights
    for this encoder is an error when it is loaded.
    """
    from wsi_ncmi.encoders.registry import takes_weights

    folder = weights_dir or (Path(os.environ[WEIGHTS_VARIABLE]) if os.environ.get(WEIGHTS_VARIABLE) else None)
    if encoder.weights is not None or folder is None or not takes_weights(encoder.name):
        return encoder
    if not folder.is_dir():
        raise InputError(f"The weights folder {folder} does not exist; make it or set another.")
    return replace(encoder, weights=folder)
