"""Rows as they come: to the journal on disk, to the caller, to the progress display."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from wsi_ncmi.core.interrupts import sigterm_as_interrupt
from wsi_ncmi.core.progress import NullProgress, ProgressReporter, TaskProgress
from wsi_ncmi.extraction.claims import clean_up
from wsi_ncmi.extraction.ledger import ALREADY_EXTRACTED, CLAIMED, Journal, LedgerRow, failed_row
from wsi_ncmi.extraction.pipeline import Utilisation
from wsi_ncmi.extraction.task import SlideTask
from wsi_ncmi.features.storage import check_same_mount, translate_os_errors
from wsi_ncmi.parallel.pool import Job
from wsi_ncmi.parallel.worker import Progress, WorkerHandle

_LOG = logging.getLogger(__name__)

JOURNAL = "ledger.jsonl"
"""Name of the journal in the output folder: the rows of every job on it, as they came."""


class ResultRecorder(Job, contextlib.ExitStack):
    """Collects the rows of a job; a context manager that holds the journal open.

    Args:
        tasks: The job.
        progress: Advanced by one a slide.
        on_row: Called with every row.

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
        self.items: Sequence[SlideTask] = tasks
        self._progress = progress
        self._on_row = on_row
        self._rows: dict[int, LedgerRow] = {}
        self._lost: set[int] = set()
        self._utilisations: dict[WorkerHandle, Utilisation] = {}
        self._journals: dict[Path, Journal] = {}
        self._started = time.monotonic()
        self._tiles = 0
        self._failed = 0
        self._told = False

    def finish(self, index: int, result: LedgerRow) -> bool:
        """Takes the final row of a slide; one that another live job holds is to be asked for again."""
        if result.reason == CLAIMED:
            if not self._told:
                self._told = True
                _LOG.info(
                    "Another job works on the same output; its slides are asked for until they are done."
                )
            return False
        if index in self._lost and result.reason == ALREADY_EXTRACTED:
            result = replace(result, status="done", reason="its worker was lost when it had written it")
        self._add(index, result)
        return True

    def fail_overdue(self, index: int, timeout_s: float) -> None:
        """Takes a slide that was given up."""
        reason = (
            f"took longer than {timeout_s:g} s and was given up; check the slide or raise --timeout-per-slide"
        )
        self._add(index, failed_row(self.items[index], reason, timeout_s))

    def fail_deadly(self, index: int, how: str) -> None:
        """Takes a slide that ended two workers."""
        reason = (
            f"its worker process died ({how}), and another one when it was tried alone; a kill by the system "
            "mostly means too little memory: use fewer workers (--workers)"
        )
        self._add(index, failed_row(self.items[index], reason))

    def take_progress(self, worker: WorkerHandle, message: Progress) -> None:
        """Takes what a worker's encoder has done so far."""
        self._utilisations[worker] = message.content

    def mark_lost(self, index: int) -> None:
        """Remembers a slide whose worker may have written it and died before it could say so."""
        self._lost.add(index)

    def clean_up(self, index: int, worker: WorkerHandle) -> None:
        """Removes temporary files and the claim of a slide."""
        clean_up(self.items[index], worker.info.name)

    @property
    def utilisation(self) -> Utilisation:
        """What the encoders have done so far, those of lost workers too."""
        return sum(self._utilisations.values(), Utilisation())

    @property
    def rows(self) -> list[LedgerRow]:
        """The rows in the order of the tasks."""
        return [self._rows[index] for index in sorted(self._rows)]

    @property
    def totals(self) -> str:
        """Tiles, their rate and the encoder's idle share, in words."""
        return f"{self._tiles} tiles in {time.monotonic() - self._started:.0f} s, {self._note()}"

    def _add(self, index: int, row: LedgerRow) -> None:
        self._rows[index] = row
        before = row.reason == ALREADY_EXTRACTED
        if not before:
            # A slide that was there before is in the journal since then.
            out = self.items[index].out
            check_same_mount(out)
            with translate_os_errors(out / JOURNAL):
                self._journal(out).append(row)
            self._tiles += row.tiles
        self._failed += row.status == "failed"
        if self._on_row is not None:
            self._on_row(row)
        note = self._note() + (f", {self._failed} failed" if self._failed else "")
        self._progress.advance(1, note, done_before=before)

    def _note(self) -> str:
        rate = self._tiles / max(time.monotonic() - self._started, 1e-9)
        return f"{rate:.0f} tiles/s, encoder idle {self.utilisation.idle_share:.0%}"

    def _journal(self, out: Path) -> Journal:
        if out not in self._journals:
            out.mkdir(parents=True, exist_ok=True)
            self._journals[out] = self.enter_context(Journal(out / JOURNAL))
        return self._journals[out]


@contextlib.contextmanager
def recording(
    tasks: Sequence[SlideTask],
    progress: ProgressReporter | None,
    on_row: Callable[[LedgerRow], None] | None,
    on_utilisation: Callable[[Utilisation], None] | None,
) -> Iterator[ResultRecorder]:
    """Records the results of a job, shows its progress, and takes SIGTERM as an interrupt.

    Args:
        tasks: The job.
        progress: Told about every slide.
        on_row: Called with every row.
        on_utilisation: Called once at the end with what the encoder had to do.
    """
    with (
        sigterm_as_interrupt(),
        (progress or NullProgress()).task("extract", len(tasks), "slides") as shown,
        ResultRecorder(tasks, shown, on_row) as recorder,
    ):
        yield recorder
        if tasks:
            _LOG.info("extract: %s", recorder.totals)
            if on_utilisation is not None:
                on_utilisation(recorder.utilisation)
