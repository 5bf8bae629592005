"""Conversion of features between formats, slide by slide, and packing of a cohort into one file."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from wsi_ncmi.core.config import configclass
from wsi_ncmi.core.errors import InputError, SlideError, WsiNcmiError, counted
from wsi_ncmi.core.files import ensure_folder, job_folder
from wsi_ncmi.core.progress import NullProgress, ProgressReporter
from wsi_ncmi.workflows.result import JobResult

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from wsi_ncmi.extraction.ledger import LedgerRow
    from wsi_ncmi.features.interchange import FeatureSet

LEDGER_NAME = "conversion.csv"
"""The ledger of a conversion; ``ledger.csv`` beside it may be that of an extraction."""

PACKED_NAME = "bags.npz"
"""The packed file where the output is a folder."""


@configclass
class ConvertConfig:
    """Features to convert, and the format to write.

    Attributes:
        features: Features of any known format.
        to: Format to write.
        out: Output folder; for ``packed`` also a file name that ends in ``.npz``.
        encoder: Name of the encoder where the files don't tell it.
        default_mpp: µm per level-0 pixel of slides whose resolution the source doesn't tell.
        mpp_table: CSV of such resolutions by slide; it goes before ``default_mpp``.
        labels: Labels table whose columns go into a packed file.
        group: ``slide_id`` where the labels know no patients.
        overwrite: Replace files of other content.
    """

    features: Path
    to: Literal["wsi-ncmi", "clam", "trident", "stamp", "packed"]
    out: Path
    encoder: str = ""
    default_mpp: Annotated[float, Field(ge=0.01, le=100)] | None = None
    mpp_table: Path | None = None
    labels: str | None = None
    group: Literal["case_id", "slide_id"] | None = None
    overwrite: bool = False


def convert(config: ConvertConfig, progress: ProgressReporter | None = None) -> JobResult:
    """Converts every slide.

    What is there with the same content is skipped; a faulty slide doesn't stop the rest.

    Args:
        config: What and how.
        progress: Told about every slide.

    Returns:
        Paths of the output and its ledger; a failure for every slide that failed, a note for each thing that
        was changed on the way.

    Raises:
        InputError: Wrong input, slides of different encoders, or a packed file is there already: nothing was
        done. JobStoppedError: The output can't be written to any more.
    """
    from wsi_ncmi.extraction.ledger import LedgerRow, write_ledger
    from wsi_ncmi.features.interchange.base import survey
    from wsi_ncmi.features.interchange.detection import open_feature_set, writer_for
    from wsi_ncmi.slides import slide_key
    from wsi_ncmi.slides.mpp import read_mpp_table

    if config.labels is not None and config.to != "packed":
        raise InputError(f"--labels goes into a packed file; {config.to} files carry no labels.")
    source = open_feature_set(config.features)
    if source.kind == config.to:
        raise InputError(f"{source.path} is in the format {config.to} already; there is nothing to convert.")
    if source.level != "tile" and config.to != "packed":
        raise InputError(
            f"{source.path} holds one vector a {source.level}, which {config.to} has no place for; "
            "give --to packed, or train on them as they are."
        )
    if config.out.resolve() == config.features.resolve():
        raise InputError(f"{config.out} holds the features; give another folder with --out.")
    survey(source)  # files that can't be read are told when their turn comes
    mpp_of = read_mpp_table(config.mpp_table) if config.mpp_table else {}
    if config.to == "packed":
        return _pack(config, source, progress)
    out = job_folder(config.out)
    writer = writer_for(config.to, out, overwrite=config.overwrite, origin=source.kind)
    rows: list[LedgerRow] = []
    try:
        with (progress or NullProgress()).task("convert", len(source.slide_ids), "slides") as task:
            for slide_id in source.slide_ids:
                started = time.monotonic()
                where = source.where(slide_id)
                told = where.relative_to(source.path).as_posix() if where != source.path else where.name
                try:
                    bag = source.bag(slide_id)
                    if not bag.metadata.encoder:
                        bag = replace(
                            bag, metadata=replace(bag.metadata, encoder=source.encoder() or config.encoder)
                        )
                    mpp = mpp_of.get(slide_key(slide_id), config.default_mpp)
                    if mpp is not None and bag.metadata.mpp_x is None:
                        bag = bag.at_resolution(mpp, mpp)
                    written = writer.write(bag)
                    seconds = time.monotonic() - started
                    reason = "; ".join(written.notes)
                    row = LedgerRow(slide_id, told, written.status, reason, len(bag.features), 0, seconds)
                except Exception as error:
                    row = _failed(slide_id, told, error, time.monotonic() - started)
                rows.append(row)
                task.advance(1, note=slide_id)
    finally:
        # Also after a broken-off job: what it did is worth knowing, and files done are skipped next time.
        if rows:
            write_ledger(rows, out / LEDGER_NAME)
    failures = tuple(f"{row.slide_id}: {row.reason}" for row in rows if row.status == "failed")
    notes = _notes(rows)
    if config.mpp_table and (strange := sorted(mpp_of.keys() - set(map(slide_key, source.slide_ids)))):
        named = f"{counted(len(strange), 'slide')} of {config.mpp_table.name} not here"
        notes = (*notes, f"{named}, such as {strange[0]!r}.")
    return JobResult({"features": out, "ledger": out / LEDGER_NAME}, failures, notes)


def _failed(slide_id: str, told: str, error: Exception, seconds: float) -> LedgerRow:
    """The row of a slide; what others put into their files can fail in any way, and is one slide's matter.

    Raises:
        WsiNcmiError: It is the whole job's.
    """
    from wsi_ncmi.extraction.ledger import LedgerRow

    if isinstance(error, WsiNcmiError) and not isinstance(error, SlideError):
        raise error
    reason = str(error) if isinstance(error, SlideError) else f"{type(error).__name__}: {error}"
    return LedgerRow(slide_id, told, "failed", reason, seconds=seconds)


def _notes(rows: Sequence[LedgerRow]) -> tuple[str, ...]:
    status: Counter[str] = Counter(row.status for row in rows)
    phrases: Counter[str] = Counter()
    for row in rows:
        if row.status != "failed" and row.reason:
            # Figures differ from slide to slide; the ledger has them.
            phrases.update({phrase.split(", relative", 1)[0] for phrase in row.reason.split("; ")})
    words = (("done", "converted"), ("skipped", "there already"), ("failed", "failed"))
    told = ", ".join(f"{status[name]} {word}" for name, word in words if status[name])
    of = (f"{phrase} ({count} of {len(rows)})." for phrase, count in phrases.most_common())
    return (f"{told} of {counted(len(rows), 'slide')}.", *of)


def _pack(config: ConvertConfig, source: FeatureSet, progress: ProgressReporter | None) -> JobResult:
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

    out = config.out if config.out.suffix == ".npz" else config.out / PACKED_NAME
    ensure_folder(out.parent)
    if out.exists() and not config.overwrite:
        raise InputError(f"{out} is there already; give --overwrite to replace it, or another --out.")
    columns = _labels(config, source)
    rows: list[LedgerRow] = []
    lengths: dict[str, int] = {}
    placed = True
    width = 0

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
            except Exception as problem:
                rows.append(_failed(slide_id, told, problem, time.monotonic() - started))
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

        def features(slide_id: str) -> NDArray[np.float16]:
            task.advance(1, note=slide_id)
            return to_half(source.features(slide_id), source.where(slide_id))[0]

        names = tuple(lengths)
        texts = {}
        if columns is not None:
            texts = {key: [columns[s][key] for s in names] for key in next(iter(columns.values()))}
        encoder = source.encoder() or config.encoder
        packed = PackedColumns(names, tuple(lengths.values()), texts, encoder, source.level)
        write_packed(out, packed, width, features, coords if placed else None)
    named = out.name == PACKED_NAME
    ledger = out.with_name(LEDGER_NAME if named else f"{out.stem}.{LEDGER_NAME}")
    write_ledger(rows, ledger)
    failures = tuple(f"{row.slide_id}: {row.reason}" for row in rows if row.status == "failed")
    left = sum(row.status == "skipped" for row in rows)
    notes = [f"{counted(len(names), 'slide')} packed."]
    if left:
        notes.append(f"{counted(left, 'slide')} without a label left out.")
    if not placed:
        notes.append("Not all slides have coordinates in pixels, so the file has none.")
    return JobResult({"features": out, "ledger": ledger}, failures, tuple(notes))


def _labels(config: ConvertConfig, source: FeatureSet) -> dict[str, dict[str, str]] | None:
    """Columns by slide, from the table given or from the source itself; None where neither has labels."""
    from wsi_ncmi.cohorts import read_labels
    from wsi_ncmi.slides import SlideIndex

    if config.labels is None:
        own = source.labels()
        return {s: {"label": own[s]} for s in source.slide_ids if s in own} if own else None
    cohort = read_labels(config.labels, group=config.group)
    index = SlideIndex(cohort.slide_ids)
    found: dict[str, dict[str, str]] = {}
    for slide_id in source.slide_ids:
        candidates = index.candidates(slide_id)
        if len(candidates) == 1:
            row = cohort.by_slide[candidates[0]]
            found[slide_id] = {"label": row.label, "centre": row.centre}
            if not cohort.case_id_assumed:
                found[slide_id]["case_id"] = row.case_id
    if not found:
        raise InputError(f"None of the slides in {source.path} has a label in {Path(config.labels).name}.")
    return found
