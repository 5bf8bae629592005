"""Progress of long work: a live bar on a terminal, plain log lines elsewhere, with rate and time left."""

import contextlib
import logging
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from wsi_ncmi.core.heartbeat import beat
from wsi_ncmi.core.logging import is_json
from wsi_ncmi.core.values import printable

_LOG = logging.getLogger("wsi_ncmi.core.progress")
_LOG_INTERVAL_S = 10.0


class TaskProgress(Protocol):
    """One running task."""

    def advance(self, amount: float = 1, note: str = "", *, done_before: bool = False) -> None:
        """Says that ``amount`` more units are done.

        Args:
            amount: How many.
            note: Shown beside the bar.
            done_before: They were done by an earlier call and only looked at; rate and time left are those of
                the others.
        """


class ProgressReporter(Protocol):
    """Opens tasks; given to every long function as ``progress``."""

    def task(
        self, description: str, total: float, unit: str = ""
    ) -> contextlib.AbstractContextManager[TaskProgress]:
        """Opens a task of ``total`` units (for example slides, epochs, runs)."""


_KNOWN_AFTER_S = 2.0  # of own work after the first report, which waits for all that has to be loaded
_KNOWN_REPORTS = 5  # after the first: parallel workers report together
_KNOWN_SHARE = 0.05  # of the work, where its units are few
_KNOWN_AT_ONCE = 0.25  # of the work: then the start weighs little


@dataclass
class _Pace:
    """Rate of a task, and its time left."""

    total: float
    done: float = 0.0
    done_before: float = 0.0
    reports: int = 0
    first: tuple[float, float] = (0.0, 0.0)
    started: float = field(default_factory=lambda: time.monotonic())

    def add(self, amount: float, done_before: bool) -> None:
        self.done += amount
        if done_before:
            self.done_before += amount
            return
        self.reports += 1
        if self.reports == 1:
            self.first = (time.monotonic(), amount)

    @property
    def own(self) -> float:
        """Units of this call's own work."""
        return self.done - self.done_before

    @property
    def rate(self) -> float:
        """Those a second."""
        return self.own / max(time.monotonic() - self.started, 1e-9)

    @property
    def left_s(self) -> float | None:
        """Seconds until all is done; None: not known yet."""
        left = max(0.0, self.total - self.done)
        if not left:
            return 0.0
        if self.own >= _KNOWN_AT_ONCE * (self.own + left):
            return left / self.rate
        seconds, units = time.monotonic() - self.first[0], self.own - self.first[1]
        enough = self.reports > _KNOWN_REPORTS or units >= _KNOWN_SHARE * (self.own + left)
        return left * seconds / units if units > 0 and seconds >= _KNOWN_AFTER_S and enough else None

    @property
    def left(self) -> str:
        """The same in words."""
        seconds = self.left_s
        return "starting" if seconds is None else f"{seconds:.0f} s left"


class _NullTask:
    def advance(self, amount: float = 1, note: str = "", *, done_before: bool = False) -> None:
        """Ignores progress, but for the heartbeat."""
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
    unit: str
    pace: _Pace
    logged: float = field(default_factory=lambda: time.monotonic())

    def advance(self, amount: float = 1, note: str = "", *, done_before: bool = False) -> None:
        beat()
        pace = self.pace
        pace.add(amount, done_before)
        now = time.monotonic()
        if now - self.logged >= _LOG_INTERVAL_S or pace.done >= pace.total:
            self.logged = now
            left_s = pace.left_s
            _LOG.info(
                "%s: %g/%g %s, %.2f/s, %s%s",
                self.description, pace.done, pace.total, self.unit, pace.rate, pace.left,
                f" ({note})" if note else "",
                extra={
                    "fields": {
                        "task": self.description, "done": pace.done, "total": pace.total, "unit": self.unit,
                        "per_s": round(pace.rate, 4), "left_s": None if left_s is None else round(left_s, 1),
                        "note": note,
                    }
                },
            )  # fmt: skip


class _LogProgress:
    @contextlib.contextmanager
    def task(self, description: str, total: float, unit: str = "") -> Iterator[TaskProgress]:
        yield _LogTask(description, unit, _Pace(total))


class _RichProgress:
    @contextlib.contextmanager
    def task(self, description: str, total: float, unit: str = "") -> Iterator[TaskProgress]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        columns = (
            TextColumn("{task.description}", markup=False),  # names of slides are no markup
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit + " {task.fields[rate]}", markup=False),
            TextColumn("{task.fields[left]}", markup=False),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with Progress(*columns, console=Console(stderr=True)) as bar:
            identifier = bar.add_task(printable(description), total=total, note="", rate="", left="")
            pace = _Pace(total)

            class _Task:
                def advance(self, amount: float = 1, note: str = "", *, done_before: bool = False) -> None:
                    beat()
                    pace.add(amount, done_before)
                    rate = f"{pace.rate:.2f}/s"
                    bar.update(identifier, advance=amount, note=printable(note), rate=rate, left=pace.left)

            yield _Task()


def progress_for(*, quiet: bool = False) -> ProgressReporter:
    """Chooses the reporter: silent, live bar (standard error is a terminal), or log lines."""
    if quiet:
        return NullProgress()
    return _RichProgress() if sys.stderr.isatty() and not is_json() else _LogProgress()
