"""An item's time stands still while it waits for others."""

from __future__ import annotations

import pytest

from wsi_ncmi.parallel import worker
from wsi_ncmi.parallel.worker import Stopwatch


def test_time_runs_from_the_start_and_not_while_paused(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(worker.time, "monotonic", lambda: now[0])
    own = Stopwatch(10.0)
    assert own.deadline is None  # not begun
    own.start()
    assert own.deadline == 110.0
    now[0] = 104.0
    own.pause()
    assert own.deadline is None
    now[0] = 500.0
    own.pause()  # again: nothing more is taken away
    own.start()
    own.start()
    assert own.deadline == 506.0


def test_without_a_limit_there_is_no_deadline() -> None:
    own = Stopwatch(None)
    own.start()
    own.pause()
    own.start()
    assert own.deadline is None
