"""Progress of a job: tiles a second, idle share, time left; also when it is resumed."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pytest

import wsi_ncmi.core.progress
import wsi_ncmi.extraction.execution.recorder
from wsi_ncmi.core.progress import progress_for
from wsi_ncmi.encoders import EncoderConfig
from wsi_ncmi.extraction.execution.local import run_slides
from wsi_ncmi.extraction.execution.recorder import ResultRecorder, recording
from wsi_ncmi.extraction.ledger import ALREADY_EXTRACTED, LedgerRow, failed_row, read_journal
from wsi_ncmi.extraction.pipeline import Utilisation
from wsi_ncmi.parallel import Progress

OPTIONS = EncoderConfig(batch_size=16)
LINE = re.compile(r"(\d+)/(\d+) slides, ([\d.]+)/s, (?:(\d+) s left|starting) \((.*)\)$")


@dataclass
class Heard:
    """A reporter that keeps what it is told."""

    told: list[tuple[float, str, bool]] = field(default_factory=list)
    total: float = 0.0

    @contextlib.contextmanager
    def task(self, description: str, total: float, unit: str = "") -> Iterator[Heard]:
        assert (description, unit) == ("extract", "slides")
        self.total = total
        yield self

    def advance(self, amount: float = 1, note: str = "", *, done_before: bool = False) -> None:
        self.told.append((amount, note, done_before))


WORKER = object()


def record(recorder: ResultRecorder, index: int, row: LedgerRow, utilisation: Utilisation) -> None:
    """What a pool does when a slide is finished."""
    recorder.take_progress(WORKER, Progress(utilisation))
    assert recorder.finish(index, row)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Seconds that the test sets."""
    now = SimpleNamespace(s=0.0)
    for module in (wsi_ncmi.core.progress, wsi_ncmi.extraction.execution.recorder):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now.s))
    return now


def lines(caplog: pytest.LogCaptureFixture) -> list[re.Match[str]]:
    return [found for record in caplog.records if (found := LINE.search(record.getMessage()))]


def test_the_line_has_rate_idle_share_and_time_left(tasks, clock, caplog: pytest.LogCaptureFixture) -> None:
    todo = tasks()
    row = failed_row(todo[0], "")
    done = replace(row, status="done", reason="", tiles=40)
    with (
        caplog.at_level(logging.INFO, "wsi_ncmi"),
        recording(todo, progress_for(), None, None) as recorder,
    ):
        clock.s = 10.0
        record(recorder, 0, done, Utilisation(tiles=40, busy_s=15.0, open_s=20.0))
        clock.s = 40.0
        record(recorder, 1, replace(row, reason="broken"), Utilisation(tiles=80, busy_s=70.0, open_s=80.0))
    first, second = (found.groups() for found in lines(caplog))
    assert first == ("1", "4", "0.10", "30", "4 tiles/s, encoder idle 25%")
    assert second == ("2", "4", "0.05", "40", "1 tiles/s, encoder idle 12%, 1 failed")


def test_what_was_done_before_makes_no_job_look_faster(
    tasks, clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Two slides are skipped at once; the third takes ten seconds, and so will the fourth."""
    todo = tasks()
    there = replace(failed_row(todo[0], ""), status="skipped", reason=ALREADY_EXTRACTED, tiles=500)
    with (
        caplog.at_level(logging.INFO, "wsi_ncmi"),
        recording(todo, progress_for(), None, None) as recorder,
    ):
        for index in (0, 1):
            record(recorder, index, there, Utilisation())
        clock.s = 10.0
        record(recorder, 2, replace(there, status="done", reason="", tiles=30), Utilisation(30, 20.0, 20.0))
    (line,) = lines(caplog)
    assert line.groups() == ("3", "4", "0.10", "10", "3 tiles/s, encoder idle 0%")


def test_no_time_left_is_made_up(tasks, clock, caplog: pytest.LogCaptureFixture) -> None:
    """As long as all slides were done before, nothing is known of those that come."""
    todo = tasks()
    there = replace(failed_row(todo[0], ""), status="skipped", reason=ALREADY_EXTRACTED, tiles=500)
    with (
        caplog.at_level(logging.INFO, "wsi_ncmi"),
        recording(todo, progress_for(), None, None) as recorder,
    ):
        clock.s = 11.0
        record(recorder, 0, there, Utilisation())
    (line,) = lines(caplog)
    assert line.groups() == ("1", "4", "0.00", None, "0 tiles/s, encoder idle 0%")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_resumed_job_tells_what_was_there(tasks, workers: int) -> None:
    todo = tasks()
    run_slides(todo[:2], OPTIONS, workers=1)
    heard, utilisations = Heard(), []
    rows = run_slides(todo, OPTIONS, workers=workers, progress=heard, on_utilisation=utilisations.append)
    assert heard.total == len(todo)
    assert [amount for amount, _, _ in heard.told] == [1] * len(todo)
    assert sorted(before for _, _, before in heard.told) == [False, False, True, True]
    assert all(re.fullmatch(r"\d+ tiles/s, encoder idle \d+%", note) for _, note, _ in heard.told)
    assert utilisations[0].tiles == sum(row.tiles for row in rows[2:]) > 0
    assert 0.0 <= utilisations[0].idle_share < 1.0
    journal = [row.slide_id for row in read_journal(todo[0].out / "ledger.jsonl")]
    assert sorted(journal) == sorted(task.record.slide_id for task in todo)
