"""Supervised extraction: workers that are killed, hang or share a folder, and jobs that are interrupted."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from wsi_ncmi.core.errors import IdentityConflictError, InputError, JobStoppedError
from wsi_ncmi.encoders import EncoderConfig
from wsi_ncmi.extraction.claims import claim
from wsi_ncmi.extraction.config import ExecutionConfig, ExtractConfig
from wsi_ncmi.extraction.execution.local import open_engine, run_slides
from wsi_ncmi.extraction.ledger import LedgerRow, read_journal
from wsi_ncmi.extraction.task import SlideTask
from wsi_ncmi.features import feature_path, verify_folder

OPTIONS = EncoderConfig(batch_size=16)


def files_of(out: Path) -> dict[str, bytes]:
    """Features, outlines and thumbnails: whatever a job leaves, but for the journal."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and path.name != "ledger.jsonl"
    }


@dataclass(frozen=True)
class HangingTask(SlideTask):
    """A slide on slow storage: finding it takes for ever (the path is asked for inside the worker)."""

    @property
    def files(self) -> Path:
        while True:
            time.sleep(60)


@dataclass(frozen=True)
class DeadlyTask(SlideTask):
    """A slide whose decoder takes the process with it."""

    @property
    def files(self) -> Path:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable")


def as_kind(task: SlideTask, kind: type[SlideTask]) -> SlideTask:
    return kind(task.record, task.config)


@pytest.fixture(scope="module")
def reference(slides: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    from wsi_ncmi.slides import take_inventory
    from wsi_ncmi.tiling import GridConfig

    out = tmp_path_factory.mktemp("reference")
    config = ExtractConfig(slides=slides, out=out, grid=GridConfig(mpp=0.5, tile_px=64))
    rows = run_slides(
        [SlideTask(record, config) for record in take_inventory(slides)],
        OPTIONS,
        workers=1,
    )
    assert [row.status for row in rows] == ["done"] * 4
    return files_of(out)


def test_workers_change_no_byte_and_rows_keep_their_order(tasks, reference) -> None:
    seen: list[LedgerRow] = []
    todo = tasks()
    rows = run_slides(todo, OPTIONS, workers=2, on_row=seen.append)
    assert [row.slide_id for row in rows] == [task.record.slide_id for task in todo]
    assert sorted(seen, key=lambda row: row.slide_id) == rows
    assert files_of(todo[0].out) == reference
    journal = todo[0].out / "ledger.jsonl"
    assert sorted(read_journal(journal), key=lambda row: row.slide_id) == rows
    again = run_slides(todo, OPTIONS, workers=1)
    assert {(row.status, row.reason) for row in again} == {("skipped", "already extracted")}
    assert [row.tiles for row in again] == [row.tiles for row in rows]
    assert len(read_journal(journal)) == 4


def test_a_killed_worker_costs_its_slide_only(tasks, reference) -> None:
    todo = tasks()
    deadly = [as_kind(todo[0], DeadlyTask), *todo[1:]]
    rows = run_slides(deadly, OPTIONS, workers=1, timeout_s=300)
    assert [row.status for row in rows] == ["failed", "done", "done", "done"]
    assert "SIGKILL" in rows[0].reason
    assert "memory" in rows[0].reason
    assert not any("slide_0" in name for name in files_of(todo[0].out))
    rows = run_slides(todo, OPTIONS)
    assert [row.status for row in rows] == ["done", "skipped", "skipped", "skipped"]
    assert files_of(todo[0].out) == reference


def test_an_overdue_slide_is_given_up(tasks) -> None:
    todo = tasks()[:2]
    rows = run_slides([as_kind(todo[0], HangingTask), todo[1]], OPTIONS, workers=1, timeout_s=5)
    assert [row.status for row in rows] == ["failed", "done"]
    assert "longer than 5 s" in rows[0].reason
    assert not any("slide_0" in name for name in files_of(todo[0].out))


JOB = """
import pickle, signal, sys
from pathlib import Path
from wsi_ncmi.encoders import EncoderConfig
from wsi_ncmi.extraction import run_slides
if __name__ == "__main__":
    # A suite that runs in the background of a shell is born deaf to Ctrl-C, and so are its children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    tasks = pickle.loads(Path(sys.argv[1]).read_bytes())
    run_slides(tasks, EncoderConfig(batch_size=16), workers=2)
"""


def start_job(tmp_path: Path, tasks: list[SlideTask]) -> subprocess.Popen[bytes]:
    (tmp_path / "job.py").write_text(JOB)
    (tmp_path / "tasks.pickle").write_bytes(pickle.dumps(tasks))
    return subprocess.Popen(
        [sys.executable, tmp_path / "job.py", tmp_path / "tasks.pickle"], start_new_session=True
    )


def wait_for(path: Path, job: subprocess.Popen[bytes]) -> None:
    for _ in range(6000):
        if path.exists():
            return
        assert job.poll() is None, "the job ended too early"
        time.sleep(0.01)
    raise AssertionError(f"{path} never came")


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_job_resumes_where_it_stopped(tasks, tmp_path: Path, reference, kind) -> None:
    todo = tasks()
    out = todo[0].out
    # The last slide never ends, so the job is at work whenever the signal comes, on however fast a machine.
    job = start_job(tmp_path, [*todo[:-1], as_kind(todo[-1], HangingTask)])
    wait_for(feature_path(out, "descriptor", todo[0].record.slide_id), job)
    children = psutil.Process(job.pid).children(recursive=True)
    if kind == signal.SIGKILL:
        os.killpg(job.pid, kind)
    else:
        job.send_signal(kind)
    # A slide in flight is given back within 10 s; only then may a container be killed.
    assert job.wait(10) != 0
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive, "workers outlive their job"
    left = [path.name for path in out.rglob("*") if path.name.endswith(".partial")]
    claims = list((out / "features" / "descriptor" / ".claims").iterdir())
    if kind != signal.SIGKILL:
        assert left == []
        assert claims == []
    rows = run_slides(todo, OPTIONS)
    assert {row.status for row in rows} <= {"done", "skipped"}
    assert rows[0].status == "skipped"
    assert files_of(out) == reference
    assert all(verdict.ok for verdict in verify_folder(out))


def test_workers_follow_a_supervisor_killed_alone(tasks, tmp_path: Path) -> None:
    todo = tasks()
    job = start_job(tmp_path, [as_kind(task, HangingTask) for task in todo])
    claims = feature_path(todo[0].out, "descriptor", "x").parent / ".claims"
    wait_for(claims / "slide_0", job)
    children = psutil.Process(job.pid).children(recursive=True)
    job.kill()
    job.wait()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive


def test_slides_of_another_job_are_waited_for(tasks) -> None:
    todo = tasks()[:2]
    held = feature_path(todo[0].out, "descriptor", "x").parent / ".claims" / "slide_0"
    held.parent.mkdir(parents=True)
    seen = threading.Event()
    release = threading.Event()

    def other_job() -> None:
        with claim(held):
            seen.set()
            release.wait(30)

    thread = threading.Thread(target=other_job)
    thread.start()
    seen.wait(30)
    order: list[str] = []

    def on_row(row: LedgerRow) -> None:
        order.append(row.slide_id)
        release.set()

    rows = run_slides(todo, OPTIONS, on_row=on_row)
    thread.join()
    assert order == ["slide_1", "slide_0"]
    assert [row.status for row in rows] == ["done", "done"]


@pytest.mark.parametrize("timeout_s", [None, 300], ids=["in this process", "in another"])
def test_what_concerns_every_slide_stops_the_job(tasks, timeout_s: float | None) -> None:
    run_slides(tasks()[:1], OPTIONS)
    with pytest.raises(IdentityConflictError, match="overwrite"):
        run_slides(tasks(mpp=1.0), OPTIONS, timeout_s=timeout_s)
    with pytest.raises(InputError, match="timm:resnet18"):
        run_slides(tasks(), EncoderConfig(name="timm:resnet18.no_such_tag"), timeout_s=timeout_s)


def test_storage_that_fails_in_a_worker_stops_the_job(tasks, tmp_path: Path) -> None:
    todo = [replace(task, config=replace(task.config, out=tmp_path / "out")) for task in tasks()]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "features").write_text("a file where a folder should be")
    with pytest.raises(JobStoppedError, match="features"):
        run_slides(todo, OPTIONS, workers=2)


def test_workers_that_never_start_end_the_job(tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    from wsi_ncmi.parallel import process_pool

    monkeypatch.setattr(process_pool, "serve", dying)
    with pytest.raises(JobStoppedError, match="before they could start"):
        run_slides(tasks(), OPTIONS, workers=2)


def dying(*_: object) -> None:
    os._exit(7)


def test_no_slides_no_rows() -> None:
    assert run_slides([], OPTIONS, workers=4) == []


def test_worker_processes_leave_nothing_in_the_stage_folder(tasks, tmp_path) -> None:
    stage = tmp_path / "stage"
    config = ExecutionConfig(workers=2, stage=stage)
    with open_engine(config, EncoderConfig()) as engine:
        rows = engine.run(tasks())
    assert {row.status for row in rows} == {"done"}
    assert [path.name for path in stage.iterdir()] == [".wsi-ncmi-stage.lock"]
