"""The last step of a slide: its files on the disk, and the row that says so."""

from __future__ import annotations

from dataclasses import replace

from wsi_ncmi.encoders import EncoderInfo
from wsi_ncmi.extraction.ledger import LedgerRow
from wsi_ncmi.extraction.pictures import write_pictures
from wsi_ncmi.extraction.preparation import Embedded, PreparedSlide
from wsi_ncmi.features.reader import FeatureFile
from wsi_ncmi.features.writer import write_features
from wsi_ncmi.tissue import ARTIFACT_KINDS

__all__ = ["done_row", "publish_slide", "skipped_row"]


def publish_slide(prepared: PreparedSlide, embedded: Embedded, encoder: EncoderInfo) -> None:
    """Writes all files of a slide; the slide itself need not be open any more.

    The features come last: where they are, everything of the slide is.

    Args:
        prepared: The slide.
        embedded: What ``prepared.assemble`` gave.
        encoder: What encoded the tiles.

    Raises:
        SlideError: A feature is not finite or does not fit float16.
        JobStoppedError: The output can't be written to.
    """
    task = prepared.task
    write_pictures(prepared, embedded.kept)
    write_features(
        task.feature_path(encoder.name),
        features=embedded.features,
        coords=embedded.coords,
        tissue_fraction=embedded.tissue_fraction,
        identity=task.identity(encoder),
        slide=embedded.slide,
        artifacts=embedded.artifacts,
        artifact_kinds=ARTIFACT_KINDS,
    )


def done_row(row: LedgerRow, embedded: Embedded) -> LedgerRow:
    """The row of a slide whose files are there now, made of the row it would have had failing."""
    return replace(
        row,
        status="done",
        reason=embedded.remark,
        tiles=len(embedded.features),
        failed_reads=embedded.slide.n_failed_reads,
        artifact_tiles=embedded.slide.n_artifact_tiles,
        reader=embedded.slide.reader,
    )


def skipped_row(row: LedgerRow, file: FeatureFile, reason: str) -> LedgerRow:
    """The row of a slide whose feature file was there already."""
    return replace(
        row,
        status="skipped",
        reason=reason,
        tiles=file.n_tiles,
        failed_reads=int(file.attrs["n_failed_reads"]),
        artifact_tiles=file.n_artifact_tiles,
        reader=str(file.attrs["reader"]),
    )
