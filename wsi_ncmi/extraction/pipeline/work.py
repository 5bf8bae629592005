"""One slide on its way through the engine."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import SlideError, WsiNcmiError
from wsi_ncmi.extraction.ledger import LedgerRow, failed_row
from wsi_ncmi.extraction.slide import PreparedSlide
from wsi_ncmi.extraction.task import SlideTask
from wsi_ncmi.features.writer import to_float16
from wsi_ncmi.slides import Slide

__all__ = ["SlideWork"]

_LOG = logging.getLogger(__name__)


class SlideWork:
    """What is known and held of a slide between its claim and its row.

    It is done when its reader has let go of it and every tile that was handed on has come back; whoever
    brings that about (:meth:`settle` says so) passes it to the writer.

    Args:
        index: Position of the task in the job.
        task: What to do.

    Attributes:
        row: Its row so far; failed until it is published.
        error: Why it can't go on; None while it can.
        held: What is released with it: its claim, its share of memory.
        slide: The open slide; closed when its tiles are read, its facts stay.
        prepared: Its tissue and tiles; None before, and where nothing is to be done.
        features: float16 (N, D), a row a tile of the selection.
        kept: bool (N,), the tiles that are encoded.
        n_failed: Tiles that could not be read.
        reader_note: What the tile reader has to say.
        remarks: What the encoder has to say.
    """

    slide: Slide
    features: NDArray[np.float16]
    kept: NDArray[np.bool_]

    def __init__(self, index: int, task: SlideTask) -> None:
        self.index, self.task = index, task
        self.row: LedgerRow = failed_row(task, task.record.problem)
        self.error: BaseException | None = None
        self.held = contextlib.ExitStack()
        self.prepared: PreparedSlide | None = None
        self.n_failed = 0
        self.reader_note = ""
        self.remarks: list[str] = []
        self._started = time.monotonic()
        self._open = 1  # the reader's own share
        self._lock = threading.Lock()

    def has_prepared(self, prepared: PreparedSlide, width: int) -> None:
        """Makes room for its features."""
        count = len(prepared.selection)
        self.features = np.empty((count, width), np.float16)
        self.kept = np.zeros(count, np.bool_)
        self.prepared = prepared

    def expect(self, count: int) -> None:
        """Says that so many tiles are handed on."""
        with self._lock:
            self._open += count

    def settle(self, count: int = 1) -> bool:
        """Says that so many tiles are back (or that reading is over); whether that was the last of it."""
        with self._lock:
            self._open -= count
            return self._open == 0

    def store(self, rows: NDArray[np.int64], features: NDArray[np.float32], encoder_name: str) -> None:
        """Takes the vectors of tiles.

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

    def assemble(self, encoder: Any) -> Any:
        """The rows that its feature file gets, with the encoder's remarks.

        Raises:
            SlideError: Not a single tile could be read.
        """
        if self.prepared is None:
            raise SlideError(f"{self.task.record.path} was not prepared.")
        embedded = self.prepared.assemble(
            self.features,
            self.kept,
            self.n_failed,
            encoder,
            self.reader_note,
            self.slide,
        )
        if self.remarks:
            remark = "; ".join([embedded.remark, *self.remarks] if embedded.remark else self.remarks)
            embedded = replace(embedded, remark=remark)
        return embedded

    def finish(self, row: LedgerRow) -> LedgerRow:
        """Sets the row, with the time that the slide took."""
        self.row = replace(row, seconds=round(time.monotonic() - self._started, 3))
        return self.row

    def release(self) -> None:
        """Lets go of what is held: claim, memory, file."""
        self.held.close()
