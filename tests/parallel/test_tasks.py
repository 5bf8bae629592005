"""Items in processes and in this one: a kill costs one item, an error is a sentence, the environment stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_one_worker_is_this_process_and_news_come_as_they_are_told(tmp_path):
    order = []

    def here():
        def work(item, callback):
            callback(item)
            order.append(("done", item))
            if item == 2:
                raise TrainingError("One sentence.")
            return os.getpid()

        return work

    outcomes = list(
        run_items([1, 2, 3], here, workers=1, on_news=lambda index, what: order.append((index, what)))
    )
    assert [outcome.result for outcome in outcomes] == [os.getpid(), None, os.getpid()]
    assert outcomes[1].problem == "One sentence."
    assert order == [(0, 1), ("done", 1), (1, 2), ("done", 2), (2, 3), ("done", 3)]


@pytest.mark.parametrize(("kind", "raised"), [("user error", False), ("bug", True)])
def test_errors_that_are_not_to_be_caught_are_raised_in_this_process(tmp_path, kind, raised):
    outcomes = run_items([(kind, str(tmp_path / "file"))], setup, workers=1, catch=TrainingError)
    if raised:
        with pytest.raises(ZeroDivisionError):
            list(outcomes)
    else:
        assert [outcome.problem for outcome in outcomes] == ["One sentence."]


def test_the_advice_on_memory_is_the_callers(tmp_path):
    (outcome,) = run_items([("die", str(tmp_path / "file"))], setup, workers=2, advice="buy more")
    assert outcome.problem.endswith("mostly means too little memory: buy more.")


def test_a_script_without_main_guard_ends_with_the_remedy_however_much_the_processes_are_told(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from functools import partial\nfrom wsi_ncmi.parallel import run_items\n"
        "list(run_items([1, 2], partial(len, bytes(1_000_000)), workers=2))\n"  # more than a pipe holds
    )
    told = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)
    assert told.returncode == 1
    assert 'below `if __name__ == "__main__":`' in told.stderr.splitlines()[-1]
