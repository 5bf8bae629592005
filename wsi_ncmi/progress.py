"""Progress of long work: a live bar on a terminal, plain log lines elsewhere, with rate and time left."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from wsi_ncmi.heartbeat import beat
from wsi_ncmi.logs import is_json

__all__ = ["NullProgress", "ProgressReporter", "TaskProgress", "progress_for"]

_LOG = logging.getLogger("wsi_ncmi.progress")
_LOG_INTERVAL_S = 10.0


class TaskProgress(Protocol):
    """One running task."""

    def advance(self, amount: float = 1, note: str = "") -> None:
        """Says that ``amount`` more units are done; ``note`` is shown beside the bar."""


class ProgressReporter(Protocol):
    """Opens tasks; given to every long function as ``progress``."""

    def task(
        self, description: str, total: float, unit: str = ""
    ) -> contextlib.AbstractContextManager[TaskProgress]:
        """Opens a task of ``total`` units (for example slides, epochs, runs)."""


class _NullTask:
    def advance(self, amount: float = 1, note: str = "") -> None:
        """Ignores the news, but for the heartbeat."""
        beat()


class NullProgress:
    """Says nothing (``--quiet``, library use, tests)."""

    @contextlib.contextmanager
    def task(self, description: str, total: float, unit: str = "") -> Iterator[TaskProgress]:
        """Opens a silent task."""
        yield _NullTask()


@dataclass
class _LogTask:
    description: str
    total: float
    unit: str
    started: float = field(default_factory=time.monotonic)
    logged: float = field(default_factory=time.monotonic)
    done: float = 0.0

    def advance(self, amount: float = 1, note: str = "") -> None:
        beat()
        self.done += amount
        now = time.monotonic()
        if now - self.logged >= _LOG_INTERVAL_S or self.done >= self.total:
            self.logged = now
            elapsed = max(now - self.started, 1e-9)
            rate = self.done / elapsed
            left = (self.total - self.done) / rate if rate > 0 else float("inf")
            _LOG.info(
                "%s: %g/%g %s, %.2f/s, %.0f s left%s",
                self.description, self.done, self.total, self.unit, rate, left,
                f" ({note})" if note else "",
                extra={
                    "fields": {
                        "task": self.description, "done": self.done, "total": self.total, "unit": self.unit,
                        "per_s": round(rate, 4), "left_s": None if left == float("inf") else round(left, 1),
                        "note": note,
                    }
                },
            )  # fmt: skip


class _LogProgress:
    @contextlib.contextmanager
    def task(self, description: str, total: float, unit: str = "") -> Iterator[TaskProgress]:
        yield _LogTask(description, total, unit)


class _RichProgress:
    @contextlib.contextmanager
    def task(self, description: str, total: float, unit: str = "") -> Iterator[TaskProgress]:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit + " {task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=Console(stderr=True)) as bar:
            identifier = bar.add_task(description, total=total, note="", rate="")
            started = time.monotonic()

            class _Task:
                done = 0.0

                def advance(self, amount: float = 1, note: str = "") -> None:
                    beat()
                    self.done += amount
                    rate = self.done / max(time.monotonic() - started, 1e-9)
                    bar.update(identifier, advance=amount, note=note, rate=f"{rate:.2f}/s")

            yield _Task()


def progress_for(*, quiet: bool = False) -> ProgressReporter:
    """Chooses the reporter: silent, live bar (standard error is a terminal), or log lines."""
    if quiet:
        return NullProgress()
    return _RichProgress() if sys.stderr.isatty() and not is_json() else _LogProgress()
