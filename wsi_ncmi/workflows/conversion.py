"""The job behind ``wsi-ncmi convert``: features of one format written in another, slide by slide."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from wsi_ncmi.core.errors import InputError, SlideError
from wsi_ncmi.core.files import ensure_folder
from wsi_ncmi.core.progress import NullProgress, ProgressReporter
from wsi_ncmi.workflows.packing import pack
from wsi_ncmi.workflows.result import JobResult

if TYPE_CHECKING:
    from wsi_ncmi.extraction.ledger import LedgerRow
    from wsi_ncmi.features.interchange import FeatureSet

__all__ = ["LEDGER_NAME", "ConversionRequest", "convert"]

LEDGER_NAME = "conversion.csv"
"""The ledger of a conversion; ``ledger.csv`` beside it may be that of an extraction."""


@dataclass(frozen=True)
class ConversionRequest:
    """What to convert into what.

    Attributes:
        features: Features of any known format.
        to: ``wsi-ncmi``, ``clam``, ``trident``, ``stamp`` or ``packed``.
        out: Output folder; for ``packed`` also a file name that ends in ``.npz``.
        encoder: Name of the encoder where the source doesn't tell.
        default_mpp: µm per level-0 pixel of slides whose resolution the source doesn't tell.
        mpp_table: CSV of such resolutions by slide; it goes before ``default_mpp``.
        labels: Labels table whose columns go into a packed file.
        group: ``slide_id`` where the labels know no patients.
        overwrite: Replace files of other content.
    """

    features: Path
    to: str
    out: Path
    encoder: str = ""
    default_mpp: float | None = None
    mpp_table: Path | None = None
    labels: str | None = None
    group: str | None = None
    overwrite: bool = False


def convert(request: ConversionRequest, progress: ProgressReporter | None = None) -> JobResult:
    """Converts every slide.

    What is there with the same content is skipped; a faulty slide doesn't stop the rest.

    Args:
        request: What and how.
        progress: Told about every slide.

    Returns:
        Paths of the output and its ledger; a failure for every slide that failed, a note for each thing that
        was changed on the way.

    Raises:
        InputError: Wrong input, slides of different encoders, or a packed file is there already: nothing was
        done. JobStoppedError: The output can't be written to any more.
    """
    from wsi_ncmi.extraction.ledger import LedgerRow, write_ledger
    from wsi_ncmi.features.interchange.detection import KINDS, open_feature_set, writer_for
    from wsi_ncmi.slides import slide_id_of
    from wsi_ncmi.slides.mpp import read_mpp_table

    if request.to not in KINDS:
        raise InputError(f"There is no format {request.to!r}; choose from {', '.join(KINDS)}.")
    if request.labels is not None and request.to != "packed":
        raise InputError(f"--labels goes into a packed file; {request.to} files carry no labels.")
    source = open_feature_set(request.features)
    if source.kind == request.to:
        raise InputError(f"{source.path} is in the format {request.to} already; there is nothing to convert.")
    _check_widths(source)
    mpp_of = read_mpp_table(request.mpp_table) if request.mpp_table else {}
    if request.to == "packed":
        return pack(request, source, LEDGER_NAME, progress)
    out = ensure_folder(request.out)
    writer = writer_for(request.to, out, overwrite=request.overwrite, origin=source.kind)
    rows: list[LedgerRow] = []
    try:
        with (progress or NullProgress()).task("convert", len(source.slide_ids), "slides") as task:
            for slide_id in source.slide_ids:
                started = time.monotonic()
                where = source.where(slide_id)
                told = where.relative_to(source.path).as_posix() if where != source.path else where.name
                try:
                    bag = source.bag(slide_id)
                    if not bag.facts.encoder:
                        bag = replace(
                            bag, facts=replace(bag.facts, encoder=source.encoder() or request.encoder)
                        )
                    mpp = mpp_of.get(slide_id_of(slide_id), request.default_mpp)
                    if mpp is not None and bag.facts.mpp_x is None:
                        bag = bag.at_resolution(mpp, mpp)
                    written = writer.write(bag)
                    seconds = time.monotonic() - started
                    reason = "; ".join(written.notes)
                    row = LedgerRow(slide_id, told, written.status, reason, len(bag.features), 0, seconds)
                except SlideError as error:
                    row = LedgerRow(slide_id, told, "failed", str(error), seconds=time.monotonic() - started)
                rows.append(row)
                task.advance(1, note=slide_id)
    finally:
        # Also after a broken-off job: what it did is worth knowing, and files done are skipped next time.
        if rows:
            write_ledger(rows, out / LEDGER_NAME)
    failures = tuple(f"{row.slide_id}: {row.reason}" for row in rows if row.status == "failed")
    return JobResult({"features": out, "ledger": out / LEDGER_NAME}, failures, _notes(rows))


def _check_widths(source: FeatureSet) -> None:
    widths: dict[int, str] = {}
    for slide_id in source.slide_ids:
        try:
            widths.setdefault(source.shape(slide_id)[1], slide_id)
        except SlideError:  # told when its turn comes
            continue
    if len(widths) > 1:
        (a, slide_a), (b, slide_b) = sorted(widths.items())[:2]
        raise InputError(
            f"{source.path} mixes encoders: slide {slide_a!r} has embeddings of {a} dimensions and "
            f"{slide_b!r} of {b}; keep one encoder in a folder."
        )


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
    return (f"{told} of {len(rows)} slides.", *of)
