"""Rows as they come: to the journal on disk, to the caller, to the progress display."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from wsi_ncmi.core.interrupts import sigterm_as_interrupt
from wsi_ncmi.core.progress import NullProgress, ProgressReporter, TaskProgress
from wsi_ncmi.extraction.extraction import ALREADY_EXTRACTED
from wsi_ncmi.extraction.ledger import Journal, LedgerRow
from wsi_ncmi.extraction.pipeline import Load
from wsi_ncmi.extraction.task import SlideTask
from wsi_ncmi.features.storage import check_place, storing

__all__ = ["JOURNAL", "Bookkeeping", "keeping_books"]

_LOG = logging.getLogger(__name__)

JOURNAL = "ledger.jsonl"
"""Name of the journal in the output folder: the rows of every job on it, as they came."""


class Bookkeeping(contextlib.ExitStack):
    """Collects the rows of a job; a context manager that holds the journal open.

    Args:
        tasks: The job.
        progress: Advanced by one a slide.
        on_row: Called with every row.

    Attributes:
        load: What the encoder has done so far.

    Raises:
        JobStoppedError: The journal can't be written.
    """

    def __init__(
        self,
        tasks: Sequence[SlideTask],
        progress: TaskProgress,
        on_row: Callable[[LedgerRow], None] | None,
    ) -> None:
        super().__init__()
        self._tasks = tasks
        self._progress = progress
        self._on_row = on_row
        self._rows: dict[int, LedgerRow] = {}
        self._journals: dict[Path, Journal] = {}
        self._started = time.monotonic()
        self._tiles = 0
        self._failed = 0
        self.load = Load()

    def add(self, index: int, row: LedgerRow, load: Load) -> None:
        """Takes the final row of the task at ``index``, and what the encoder has done so far."""
        self.load = load
        self._rows[index] = row
        before = row.reason == ALREADY_EXTRACTED
        if not before:
            # A slide that was there before is in the journal since then.
            out = self._tasks[index].out
            check_place(out)
            with storing(out / JOURNAL):
                self._journal(out).append(row)
            self._tiles += row.tiles
        self._failed += row.status == "failed"
        if self._on_row is not None:
            self._on_row(row)
        note = self._note() + (f", {self._failed} failed" if self._failed else "")
        self._progress.advance(1, note, done_before=before)

    @property
    def totals(self) -> str:
        """Tiles, their rate and the encoder's idle share, in words."""
        return f"{self._tiles} tiles in {time.monotonic() - self._started:.0f} s, {self._note()}"

    def _note(self) -> str:
        rate = self._tiles / max(time.monotonic() - self._started, 1e-9)
        return f"{rate:.0f} tiles/s, encoder idle {self.load.idle_share:.0%}"

    @property
    def rows(self) -> list[LedgerRow]:
        """The rows in the order of the tasks."""
        return [self._rows[index] for index in sorted(self._rows)]

    def _journal(self, out: Path) -> Journal:
        if out not in self._journals:
            out.mkdir(parents=True, exist_ok=True)
            self._journals[out] = self.enter_context(Journal(out / JOURNAL))
        return self._journals[out]


@contextlib.contextmanager
def keeping_books(
    tasks: Sequence[SlideTask],
    progress: ProgressReporter | None,
    on_row: Callable[[LedgerRow], None] | None,
    on_load: Callable[[Load], None] | None,
) -> Iterator[Bookkeeping]:
    """What every engine does around its work: books, progress, and SIGTERM as an interrupt.

    Args:
        tasks: The job.
        progress: Told about every slide.
        on_row: Called with every row.
        on_load: Called once at the end with what the encoder had to do.
    """
    with (
        sigterm_as_interrupt(),
        (progress or NullProgress()).task("extract", len(tasks), "slides") as shown,
        Bookkeeping(tasks, shown, on_row) as books,
    ):
        yield books
        if tasks:
            _LOG.info("extract: %s", books.totals)
            if on_load is not None:
                on_load(books.load)
