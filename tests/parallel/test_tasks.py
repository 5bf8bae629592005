"""Processes: a kill costs one task, an error is a sentence, the caller's environment stays."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from wsi_ncmi.core.errors import TrainingError
from wsi_ncmi.parallel import run_items


def work(task, tell):
    kind, where = task
    with Path(where).open("a") as handle:
        handle.write("x")
    if kind == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "die once" and Path(where).stat().st_size == 1:
        os._exit(3)
    if kind == "user error":
        raise TrainingError("One sentence.")
    if kind == "bug":
        raise ZeroDivisionError("oops")
    tell({"threads": os.environ["OMP_NUM_THREADS"]})
    return kind.upper()


def setup():
    return work


def test_every_kind_of_end(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    before = dict(os.environ)
    kinds = ["fine", "die", "user error", "die once", "bug", "fine"]
    tasks = [(kind, str(tmp_path / f"{i}")) for i, kind in enumerate(kinds)]
    news = []
    outcomes = list(
        run_items(tasks, setup, workers=2, on_news=lambda index, what: news.append((index, what)))
    )
    by_index = {outcome.index: outcome for outcome in outcomes}
    assert len(outcomes) == len(by_index) == len(tasks)
    assert [by_index[i].result for i in (0, 3, 5)] == ["FINE", "DIE ONCE", "FINE"]
    assert "died 2 times (last: signal SIGKILL)" in by_index[1].problem
    assert by_index[2].problem == "One sentence."
    assert not by_index[2].details
    assert by_index[4].problem == "ZeroDivisionError: oops"
    assert "Traceback" in by_index[4].details
    assert sorted(index for index, _ in news) == [0, 3, 5]
    assert {what["threads"] for _, what in news} == {"1"}
    attempts = [len((tmp_path / f"{i}").read_text()) for i in range(len(kinds))]
    assert attempts == [1, 2, 1, 2, 1, 1]
    assert dict(os.environ) == before


def test_no_task_no_process():
    assert list(run_items([], setup, workers=2, on_news=print)) == []
