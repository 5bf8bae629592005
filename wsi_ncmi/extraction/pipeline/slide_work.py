"""State of one slide on its way through the pipeline."""

import contextlib
import logging
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import SlideError, WsiNcmiError
from wsi_ncmi.encoders import EncoderInfo
from wsi_ncmi.extraction.ledger import LedgerRow, failed_row
from wsi_ncmi.extraction.slide import PreparedSlide, SlideEmbedding
from wsi_ncmi.extraction.staging import StagedSlide
from wsi_ncmi.extraction.task import SlideTask
from wsi_ncmi.features.writer import to_float16
from wsi_ncmi.slides import Slide

_LOG = logging.getLogger(__name__)


class SlideWork:
    """State of a slide between its claim and its row.

    It is complete when its reader is done and every tile that was handed on is encoded; the caller of
    :meth:`complete` that completes it passes it to the writer.

    Args:
        index: Position of the task in the job.
        task: The slide.

    Attributes:
        row: Its row so far; failed until it is published.
        error: The error that it fails with; None without one.
        held: Releases its claim and its share of memory.
        staged: Its local copy; None where it is read where it is.
        is_settled: Whether nothing is to be done, for it has its row or was given up.
        slide: The open slide; closed when its tiles are read, its metadata stays.
        prepared: Its tissue and tiles; None before, and where nothing is to be done.
        features: float16 (N, D), a row a tile of the selection.
        kept: bool (N,), the tiles that are encoded.
        n_failed: Tiles that could not be read.
        reader_note: Remark of the tile reader.
        remarks: Remarks of the encoder.
    """

    slide: Slide
    features: NDArray[np.float16]
    kept: NDArray[np.bool_]

    def __init__(self, index: int, task: SlideTask) -> None:
        self.index, self.task = index, task
        self.row: LedgerRow = failed_row(task, task.record.problem)
        self.error: BaseException | None = None
        self.held = contextlib.ExitStack()
        self.staged: StagedSlide | None = None
        self.is_settled = bool(task.record.problem)
        self.prepared: PreparedSlide | None = None
        self.n_failed = 0
        self.reader_note = ""
        self.remarks: list[str] = []
        self._started = time.monotonic()
        self._pending = 1  # the reader's own share
        self._lock = threading.Lock()

    @property
    def source(self) -> Path | tuple[Path, ...]:
        """What is opened: the slide's own files, or their copies."""
        files = self.task.files
        if self.staged is None:
            return files
        return self.staged.files if isinstance(files, tuple) else self.staged.files[0]

    def set_prepared(self, prepared: PreparedSlide, embed_dim: int) -> None:
        """Takes the prepared slide, and allocates its features."""
        count = len(prepared.selection)
        self.features = np.empty((count, embed_dim), np.float16)
        self.kept = np.zeros(count, np.bool_)
        self.prepared = prepared

    def add_pending(self, count: int) -> None:
        """Counts tiles that are handed on."""
        with self._lock:
            self._pending += count

    def complete(self, count: int = 1) -> bool:
        """Counts tiles that are encoded (or the reader, when it is done); True when nothing is pending."""
        with self._lock:
            self._pending -= count
            return self._pending == 0

    def store(self, rows: NDArray[np.int64], features: NDArray[np.float32], encoder_name: str) -> None:
        """Stores the vectors of tiles.

        Raises:
            SlideError: A value does not fit float16.
        """
        self.features[rows] = to_float16(features, encoder_name)
        self.kept[rows] = True

    def remark(self, text: str) -> None:
        """Notes something for the ledger, once."""
        with self._lock:
            if text and text not in self.remarks:
                self.remarks.append(text)

    def fail(self, error: BaseException, where: str = "") -> None:
        """Gives the slide up; the first reason stays."""
        with self._lock:
            if self.error is not None:
                return
            self.error = error
        reason = str(error)
        if not isinstance(error, WsiNcmiError):
            _LOG.error("Slide %s: internal error", self.task.record.slide_id, exc_info=error)
            reason = f"internal error {type(error).__name__}: {error}"
        self.row = replace(self.row, status="failed", reason=f"{reason}{where}")

    def assemble(self, encoder: EncoderInfo) -> SlideEmbedding:
        """The rows that its feature file gets, with the encoder's remarks.

        Raises:
            SlideError: Not a single tile could be read.
        """
        if self.prepared is None:
            raise SlideError(f"{self.task.record.path} was not prepared.")
        embedding = self.prepared.assemble(
            self.features, self.kept, self.n_failed, encoder, self.reader_note, self.slide
        )
        if self.remarks:
            remark = "; ".join([embedding.remark, *self.remarks] if embedding.remark else self.remarks)
            embedding = replace(embedding, remark=remark)
        return embedding

    def finish(self, row: LedgerRow) -> LedgerRow:
        """Sets the row, with the time that the slide took."""
        self.row = replace(row, seconds=round(time.monotonic() - self._started, 3))
        return self.row

    def release(self) -> None:
        """Releases claim and memory."""
        self.held.close()
