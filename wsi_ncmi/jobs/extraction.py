"""The extraction job: a folder of slides to feature files, thumbnails, outlines and a ledger."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from wsi_ncmi.encoders.options import EncoderOptions
from wsi_ncmi.errors import InputError
from wsi_ncmi.files import ensure_folder, path_safe
from wsi_ncmi.jobs.config import ExtractionOptions, JobConfig
from wsi_ncmi.jobs.records import write_record
from wsi_ncmi.jobs.result import JobResult
from wsi_ncmi.progress import NullProgress, ProgressReporter
from wsi_ncmi.slides import SlideRecord, slide_id_of, take_inventory, write_slides_csv
from wsi_ncmi.tiling import GridOptions
from wsi_ncmi.tissue import TissueOptions

if TYPE_CHECKING:
    from wsi_ncmi.features import LedgerRow

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
        shard: ``(i, n)``: every n-th slide from the i-th (1-based), for job arrays.
        overwrite: Replace feature files of another identity.
        weights_dir: Folder of encoder weights.
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
    shard: tuple[int, int] | None = None
    overwrite: bool = False
    weights_dir: Path | None = None

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
        )


def extract(request: ExtractionRequest, progress: ProgressReporter | None = None) -> JobResult:
    """Extracts the features of all slides; what is done already is skipped.

    Args:
        request: What and how.
        progress: Told about every slide.

    Returns:
        Paths of ``features``, ``ledger`` and ``slides``; a failure for every slide that failed.

    Raises:
        InputError: Wrong input, or a feature file of another identity stands in the way: nothing was started.
    """
    from wsi_ncmi.encoders import load_encoder
    from wsi_ncmi.features import SlideTask, check_conflicts, write_ledger
    from wsi_ncmi.scale import available_cores, run_slides

    progress = progress or NullProgress()
    encoder_options = resolve_weights(request.encoder, request.weights_dir)
    encoder = load_encoder(encoder_options)  # a wrong name or file is told before any slide is opened
    out = ensure_folder(request.out)
    records = take_inventory(
        request.slides, mpp_table=request.mpp_table, default_mpp=request.default_mpp, progress=progress
    )
    write_slides_csv(records, out / "slides.csv")
    chosen = _chosen(records, request)
    root = request.slides if request.slides.is_dir() else request.slides.parent
    tasks = [
        SlideTask(
            record=record,
            root=root,
            out=out,
            tissue=request.tissue,
            grid=request.grid,
            overwrite=request.overwrite,
        )
        for record in chosen
    ]
    check_conflicts(tasks, encoder)
    workers = request.extraction.workers or available_cores()
    write_record(
        out / "run.json",
        config={
            "encoder": asdict(encoder_options),
            "tissue": asdict(request.tissue),
            "grid": asdict(request.grid),
            "extraction": asdict(request.extraction),
            "default_mpp": request.default_mpp,
            "shard": request.shard,
        },
        encoder={
            "name": encoder.name,
            "width": encoder.width,
            "weights_sha256": encoder.weights_sha256,
            "weights_source": encoder.weights_source,
            "transform": encoder.transform,
            "precision": encoder.precision,
            "backend": encoder.backend,
        },
        workers=workers,
    )
    ran = run_slides(
        tasks,
        encoder_options,
        workers=max(1, min(workers, len(tasks))),
        timeout_s=request.extraction.timeout_per_slide,
        progress=progress,
        on_row=None,
    )
    copies = {record.slide_id: record.duplicate_of for record in chosen if record.duplicate_of}
    rows = [_with_copy(row, copies.get(row.slide_id, "")) for row in ran]
    ledger = out / ("ledger.csv" if request.shard is None else "ledger_{}_of_{}.csv".format(*request.shard))
    write_ledger(_with_earlier(rows, ledger, {record.slide_id for record in records}), ledger)
    failures = tuple(f"{row.slide_id}: {row.reason}" for row in rows if row.status == "failed")
    return JobResult(
        files={
            "features": out / "features" / path_safe(encoder.name),
            "ledger": ledger,
            "slides": out / "slides.csv",
        },
        failures=failures,
        notes=(
            f"{sum(row.status == 'done' for row in rows)} slides done, "
            f"{sum(row.status == 'skipped' for row in rows)} done before, {len(failures)} failed, "
            f"{sum(row.tiles for row in rows)} tiles.",
        ),
    )


def _with_copy(row: LedgerRow, original: str) -> LedgerRow:
    if not original:
        return row
    same = f"same content as {original}"
    return replace(row, reason=f"{row.reason}; {same}" if row.reason else same)


def _with_earlier(rows: Sequence[LedgerRow], ledger: Path, present: set[str]) -> tuple[LedgerRow, ...]:
    """Rows of earlier jobs on slides that are still there stay: a job on a part of them forgets nothing."""
    from wsi_ncmi.features import merge_rows, read_ledger

    earlier = read_ledger(ledger) if ledger.is_file() else ()
    return merge_rows((row for row in earlier if row.slide_id in present), rows)


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


def _chosen(records: Sequence[SlideRecord], request: ExtractionRequest) -> list[SlideRecord]:
    chosen = list(records)
    if request.only is not None:
        wanted = _listed(request.only)
        chosen = [record for record in chosen if slide_id_of(record.slide_id) in wanted]
        known = {slide_id_of(record.slide_id) for record in chosen}
        unknown = sorted(wanted - known)
        if unknown:
            raise InputError(
                f"{request.only} lists {len(unknown)} slides that are not below {request.slides} (the first: "
                f"{unknown[0]!r}); correct the list."
            )
    if request.shard is not None:
        number, count = request.shard
        chosen = chosen[number - 1 :: count]
    if not chosen and request.shard is None:
        raise InputError(f"There is no slide below {request.slides}; give the folder that holds them.")
    return chosen


def _listed(path: Path) -> set[str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            rows = csv.DictReader(handle)
            if "slide_id" not in (rows.fieldnames or ()):
                raise InputError(f"{path} needs a column 'slide_id'; it has {rows.fieldnames}.")
            return {slide_id_of(row["slide_id"].strip()) for row in rows if row["slide_id"]}
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The list {path} can't be read ({error}).") from error
