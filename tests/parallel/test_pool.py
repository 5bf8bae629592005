"""The supervisor with real processes: suspects, timeouts, bad starts, early answers, logs, GPUs, no orphans."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from wsi_ncmi.core.errors import InputError, JobStoppedError
from wsi_ncmi.parallel import Finished, Job, ProcessPool, Progress, SlotFree, Started, run_items
from wsi_ncmi.parallel.pool import ItemQueue

ROOT = Path(__file__).resolve().parents[2]


class TwoSlotWorker:
    """A worker that takes two items at a time; an item is (what it does, a file that counts its attempts)."""

    def __init__(self, trouble: Exception | None = None) -> None:
        if trouble is not None:
            raise trouble
        logging.getLogger("wsi_ncmi.test").warning("weights are %s", "random")
        self.info = os.getpid()

    def begin(self, config, send) -> None:
        self.config, self.send = config, send
        for _ in range(2):
            send(SlotFree())

    def submit(self, index: int, item: tuple[str, Path]) -> None:
        threading.Thread(target=self.work, args=(index, *item), daemon=True).start()

    def work(self, index: int, what: str, file: Path) -> None:
        with file.open("a") as handle:  # before the message, so that who hears it finds the file
            handle.write("x")
        self.send(Started(index))
        if what == "die":
            time.sleep(0.3)  # the neighbour is in flight by then
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "hang":
            time.sleep(600)
        if what == "slow":
            time.sleep(0.8)
        self.send(Progress(what, index))
        later = what == "later" and file.stat().st_size < 2
        self.send(Finished(index, "later" if later else (os.getpid(), self.config)))
        self.send(SlotFree())


class RecordingJob(Job):
    """Keeps what it is told."""

    def __init__(self, folder: Path, *kinds: str) -> None:
        self.items = [(kind, folder / str(number)) for number, kind in enumerate(kinds)]
        self.results: dict[int, Any] = {}
        self.failures: dict[int, str] = {}
        self.news: list[tuple[int, str]] = []
        self.lost: list[int] = []
        self.cleaned: list[int] = []

    @property
    def attempts(self) -> list[int]:
        return [file.stat().st_size for _, file in self.items]

    def finish(self, index: int, result: Any) -> bool:
        if result == "later":
            return False
        self.results[index] = result
        return True

    def fail_overdue(self, index: int, timeout_s: float) -> None:
        self.failures[index] = f"overdue after {timeout_s:g} s"

    def fail_deadly(self, index: int, how: str) -> None:
        self.failures[index] = how

    def take_progress(self, worker, message: Progress) -> None:
        self.news.append((message.index, message.content))

    def mark_lost(self, index: int) -> None:
        self.lost.append(index)

    def clean_up(self, index: int, worker) -> None:
        self.cleaned.append(index)


def test_an_item_that_was_put_back_comes_next() -> None:
    items = ItemQueue(3)
    assert items.take() == 0
    assert items.take() == 1
    items.put_back(0)
    assert [items.take(), items.take(), items.take()] == [0, 2, None]


def test_every_item_is_done_once_and_asked_for_again_where_it_could_not_be(tmp_path: Path) -> None:
    job = RecordingJob(tmp_path, "fine", "later", "fine", "slow", "fine")
    with ProcessPool(TwoSlotWorker, size=2, config="plan") as pool:
        pool.run(job)
    assert sorted(job.results) == [0, 1, 2, 3, 4]
    assert {config for _, config in job.results.values()} == {"plan"}
    assert job.attempts == [1, 2, 1, 1, 1]
    assert sorted(job.news) == [
        (0, "fine"),
        (1, "later"),
        (1, "later"),
        (2, "fine"),
        (3, "slow"),
        (4, "fine"),
    ]
    assert (job.failures, job.lost, job.cleaned) == ({}, [], [])


def test_a_deadly_item_is_found_alone_and_costs_no_neighbour(tmp_path: Path) -> None:
    job = RecordingJob(tmp_path, "slow", "die", "fine", "fine")
    with ProcessPool(TwoSlotWorker, size=1) as pool:
        pool.run(job)
    assert sorted(job.results) == [0, 2, 3]
    assert job.failures == {1: "signal SIGKILL"}
    assert job.attempts == [2, 2, 1, 1]  # both were suspects; each was then tried alone
    assert sorted(job.lost) == sorted(job.cleaned) == [0, 1, 1]


def test_an_overdue_item_is_killed_and_its_neighbour_begun_anew(tmp_path: Path) -> None:
    job = RecordingJob(tmp_path, "hang", "fine", "slow", "fine", "fine")
    with ProcessPool(TwoSlotWorker, size=1, timeout_s=2.0) as pool:
        pool.run(job)
    assert sorted(job.results) == [1, 2, 3, 4]
    assert job.failures == {0: "overdue after 2 s"}
    assert job.attempts[0] == 1


def test_the_first_worker_tells_of_itself_and_does_the_work_then(tmp_path: Path, caplog) -> None:
    job = RecordingJob(tmp_path, "fine", "slow", "slow", "slow", "slow")
    with ProcessPool(TwoSlotWorker, size=2, config="not yet known") as pool:
        first = pool.describe()
        assert first != os.getpid()
        pool.config = "plan"
        pool.run(job)
    assert first in {pid for pid, _ in job.results.values()}
    assert {config for _, config in job.results.values()} == {"plan"}
    # Both processes said it; it is told once, by the log of this one.
    assert [record.getMessage() for record in caplog.records if record.name == "wsi_ncmi.test"] == [
        "weights are random"
    ]


@pytest.mark.parametrize(
    ("trouble", "kind", "words"),
    [
        (InputError("No such encoder."), InputError, "No such encoder."),
        (ZeroDivisionError("oops"), JobStoppedError, "internal error ZeroDivisionError: oops"),
    ],
)
def test_a_worker_that_can_not_be_set_up_says_why(tmp_path: Path, trouble, kind, words: str) -> None:
    with ProcessPool(partial(TwoSlotWorker, trouble), size=2) as pool, pytest.raises(kind, match=words):
        pool.describe()
    with ProcessPool(partial(TwoSlotWorker, trouble), size=2) as pool, pytest.raises(kind, match=words):
        pool.run(RecordingJob(tmp_path, "fine", "fine"))


def end() -> TwoSlotWorker:
    os._exit(7)


def test_workers_that_never_start_end_the_job(tmp_path: Path) -> None:
    with ProcessPool(end, size=2) as pool, pytest.raises(JobStoppedError, match=r"exit code 7.*--workers"):
        pool.run(RecordingJob(tmp_path, "fine", "fine", "fine"))


def test_leaving_the_pool_kills_what_is_in_flight_and_cleans_up(tmp_path: Path) -> None:
    job = RecordingJob(tmp_path, "hang", "hang", "fine")
    me = psutil.Process()
    before = set(me.children(recursive=True))
    with ProcessPool(TwoSlotWorker, size=1) as pool:
        for _ in pool.steps(job):
            if all(file.exists() for _, file in job.items[:2]):
                break
        assert set(me.children(recursive=True)) - before
    assert sorted(job.cleaned) == [0, 1]
    left = {
        child for child in set(me.children(recursive=True)) - before if "spawn_main" in str(child.cmdline())
    }
    assert not left


def device_of(item: tuple[Path, int], callback) -> tuple[str, str]:
    """Waits until all workers are here, so that each has one item."""
    folder, workers = item
    (folder / str(os.getpid())).touch()
    deadline = time.monotonic() + 60
    while len(list(folder.iterdir())) < workers and time.monotonic() < deadline:
        time.sleep(0.02)
    return os.environ["CUDA_VISIBLE_DEVICES"], os.environ["OMP_NUM_THREADS"]


def devices_of() -> Any:
    return device_of


def test_gpus_and_slices_of_gpus_are_dealt_over_the_processes(tmp_path: Path) -> None:
    outcomes = list(run_items([(tmp_path, 3)] * 3, devices_of, workers=3, gpus=("0", "MIG-a")))
    assert Counter(outcome.result for outcome in outcomes) == {("0", "1"): 2, ("MIG-a", "1"): 1}


HANGING = """
import sys, time
from pathlib import Path
from wsi_ncmi.parallel import run_items

def work(item, callback):
    Path(sys.argv[1], str(item)).touch()
    time.sleep(600)

def setup():
    return work

if __name__ == "__main__":
    list(run_items([1, 2], setup, workers=2))
"""


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "hanging.py").write_text(HANGING)
    folder = tmp_path / "begun"
    folder.mkdir()
    parent = subprocess.Popen([sys.executable, tmp_path / "hanging.py", folder], cwd=ROOT)
    while len(list(folder.iterdir())) < 2:
        assert parent.poll() is None
        time.sleep(0.05)
    children = psutil.Process(parent.pid).children(recursive=True)
    parent.kill()
    parent.wait()
    assert children
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
