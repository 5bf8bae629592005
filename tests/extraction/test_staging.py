"""Copies of slides ahead of the readers: the same results, bounded, overlapped with work, and gone afterwards."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests.extraction.conftest import GRID, Tasks, write_slide
from tests.extraction.test_pipeline import files_of, run
from tests.slides.dicom_slide import write_instance
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.extraction import staging
from wsi_ncmi.extraction.config import ExtractConfig
from wsi_ncmi.extraction.execution.plan import PipelineConfig, ResourcePlan, with_stage
from wsi_ncmi.extraction.staging import NotStagedError, Stage, prepare_stage
from wsi_ncmi.extraction.task import SlideTask
from wsi_ncmi.slides import SlideRecord, take_inventory
from wsi_ncmi.slides.discovery import find_slides
from wsi_ncmi.slides.identity import fingerprint

GIB = 1 << 30


@pytest.fixture(scope="module")
def records(slides) -> tuple[SlideRecord, ...]:
    return take_inventory(slides)


@pytest.fixture
def tasks(slides, records, tmp_path) -> Tasks:
    def made(out: Path = tmp_path / "out") -> list[SlideTask]:
        return [SlideTask(record, ExtractConfig(slides=slides, out=out, grid=GRID)) for record in records]

    return made


@pytest.fixture
def folder(tmp_path) -> Path:
    prepare_stage(tmp_path / "stage")
    return tmp_path / "stage"


def left_in(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.name != ".wsi-ncmi-stage.lock"]


def source(tmp_path: Path, name: str, size: int = 100_000) -> Path:
    path = tmp_path / "share" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(np.random.default_rng(len(name)).bytes(size))
    return path


def test_a_staged_job_leaves_the_same_files_and_rows(tasks, encoder, tmp_path, folder):
    plain = tasks(out=tmp_path / "a")
    rows, _, _ = run(encoder, plain)
    staged, _, _ = run(encoder, tasks(out=tmp_path / "b"), stage=folder, stage_bytes=GIB, readers=2)
    seconds = {"seconds"}
    for slide_id, row in rows.items():
        for name in set(vars(row)) - seconds:
            assert getattr(staged[slide_id], name) == getattr(row, name)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    assert left_in(folder) == []
    # Slides that are there are not copied again.
    again, _, _ = run(encoder, tasks(out=tmp_path / "b"), stage=folder, stage_bytes=1)
    assert {row.status for row in again.values()} == {"skipped"}


def test_readers_open_the_copies_and_the_next_is_copied_while_one_is_read(
    tasks, encoder, tmp_path, folder, monkeypatch
):
    """Each copy lasts until the slide before it is opened, which waits for the next copy to begin."""
    from wsi_ncmi.extraction.pipeline import pipeline

    copies, reads, reading, copying = [], [], threading.Semaphore(0), threading.Semaphore(0)
    real_open, real_copy = pipeline.open_slide, Stage._copy

    def copied(self, source, copy):
        copies.append(source.name)
        if len(copies) > 1:
            copying.release()
            assert reading.acquire(timeout=20), "nothing is read while the next slide is copied"
        real_copy(self, source, copy)

    def opened(path):
        reads.append(path.name)
        assert folder in path.parents
        reading.release()
        if len(reads) < 4:
            assert copying.acquire(timeout=20), "nothing is copied while a slide is read"
        return real_open(path)

    monkeypatch.setattr(Stage, "_copy", copied)
    monkeypatch.setattr(pipeline, "open_slide", opened)
    rows, _, _ = run(encoder, tasks(), stage=folder, stage_bytes=GIB)
    assert {row.status for row in rows.values()} == {"done"}
    assert copies == reads
    assert len(copies) == 4


def test_no_more_is_staged_than_the_limit_and_readers_allow(tasks, encoder, tmp_path, folder, monkeypatch):
    most, size = [], max(task.slide_path.stat().st_size for task in tasks())
    real = Stage.take

    def taken(self, *arguments):
        staged = real(self, *arguments)
        most.append(self._used)
        return staged

    monkeypatch.setattr(Stage, "take", taken)
    rows, _, _ = run(encoder, tasks(), stage=folder, stage_bytes=size + 10, readers=2)
    assert {row.status for row in rows.values()} == {"done"}
    assert max(most) <= size + 10


def test_what_does_not_fit_is_read_where_it_is_with_one_warning(tasks, encoder, folder, caplog):
    rows, _, _ = run(encoder, tasks(), stage=folder, stage_bytes=1000)
    assert {row.status for row in rows.values()} == {"done"}
    assert {record.getMessage() for record in caplog.records} == {
        "Slides of more than a process's share of the stage folder (0.0 GB; --stage-gib) are read where they are."
    }


def test_a_full_disk_is_told_and_nothing_stays(tmp_path, folder, monkeypatch):
    stage = Stage(folder, GIB)
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 10))
    with pytest.raises(NotStagedError, match="is full"):
        stage.take([source(tmp_path, "a.svs")], "", contextlib.nullcontext)
    monkeypatch.undo()

    def full(self, out, chunk):
        raise NotStagedError(staging._FULL)

    monkeypatch.setattr(Stage, "_write", full)
    with pytest.raises(NotStagedError, match="is full"):
        stage.take([source(tmp_path, "a.svs")], "", contextlib.nullcontext)
    assert stage._used == 0
    stage.close()
    assert left_in(folder) == []


def test_a_slide_of_several_files_is_copied_whole_and_its_fingerprint_holds(tmp_path, folder):
    files = [source(tmp_path, "S1.mrxs"), tmp_path / "share" / "S1" / "Data0000.dat"]
    files[1].parent.mkdir()
    files[1].write_bytes(b"tiles" * 999)
    stage = Stage(folder, GIB)
    staged = stage.take(files, fingerprint(files[0], files[1:]), contextlib.nullcontext)
    main, data = staged.files
    assert (main.name, data.relative_to(main.parent)) == ("S1.mrxs", Path("S1/Data0000.dat"))
    assert [path.read_bytes() for path in staged.files] == [path.read_bytes() for path in files]
    assert (stage.folder.stat().st_mode & 0o777) == 0o700
    # A second set of features shares the copy.
    assert stage.take(files, "", contextlib.nullcontext) is staged
    stage.release(staged)
    assert main.exists()
    stage.release(staged)
    assert not main.exists()
    stage.close()


def test_a_copy_goes_on_where_the_share_failed(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(staging, "_CHUNK_BYTES", 40_000)
    monkeypatch.setattr(staging, "_PAUSE_S", 0.0)
    path, seen, real = source(tmp_path, "a.svs"), [], Stage._write

    def flaky(self, out, chunk):
        real(self, out, chunk)
        seen.append(len(chunk))

    class Failing:
        """The share is away once, after 80,000 bytes."""

        failed = False

        def __init__(self, path):
            self._file = path.open("rb", buffering=0)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self._file.close()

        def seek(self, place):
            self._file.seek(place)

        def read(self, count):
            if self._file.tell() >= 80_000 and not Failing.failed:
                Failing.failed = True
                raise OSError(5, "Input/output error")
            return self._file.read(count)

    stage = Stage(folder, GIB)
    monkeypatch.setattr(Stage, "_write", flaky)
    real_path_open = Path.open
    monkeypatch.setattr(
        Path, "open", lambda self, mode="r", *a, **k: Failing(_Real(self, real_path_open))
        if (self, mode) == (path, "rb") else real_path_open(self, mode, *a, **k),
    )  # fmt: skip
    staged = stage.take([path], "", contextlib.nullcontext)
    monkeypatch.undo()
    assert staged.files[0].read_bytes() == path.read_bytes()
    assert (Failing.failed, seen) == (True, [40_000, 40_000, 20_000])
    stage.close()


class _Real:
    def __init__(self, path, opener):
        self.path, self.opener = path, opener

    def open(self, *arguments, **options):
        return self.opener(self.path, *arguments, **options)


def test_a_dicom_series_of_two_folders_is_staged_whole(tmp_path, folder, encoder, caplog):
    pixels = np.full((400, 500, 3), 240, np.uint8)
    pixels[50:300, 50:300] = np.random.default_rng(0).normal((190, 110, 165), 18, (250, 250, 3)).clip(0, 255)
    for place, down in (("a/1.dcm", 1), ("b/2.dcm", 2)):
        (tmp_path / "s" / place).parent.mkdir(parents=True)
        level = pixels[::down, ::down].copy()
        write_instance(tmp_path / "s" / place, level, series="1.2.7", uid=f"1.2.7.{down}", mpp=0.5 * down)
    (record,) = take_inventory(tmp_path / "s")
    outs = []
    for name, options in (("direct", {}), ("staged", {"stage": folder, "stage_bytes": GIB})):
        config = ExtractConfig(slides=tmp_path / "s", out=tmp_path / name, grid=GRID)
        rows, _, _ = run(encoder, [SlideTask(record, config)], **options)
        assert [row.status for row in rows.values()] == ["done"]
        outs.append(files_of(tmp_path / name))
    assert outs[0] == outs[1]
    assert record.n_levels == 2
    assert "read where it is" not in caplog.text


def test_what_changed_or_is_gone_is_not_staged(tmp_path, folder):
    stage, path = Stage(folder, GIB), source(tmp_path, "a.svs")
    with pytest.raises(NotStagedError, match=r"a.svs can't be copied .*isn't the slide of the inventory"):
        stage.take([path], "0" * 32, contextlib.nullcontext)
    path.unlink()
    with pytest.raises(NotStagedError, match=r"a.svs can't be copied .*No such file"):
        stage.take([path], "", contextlib.nullcontext)
    assert stage._used == 0
    stage.close()


KILLED = """
import contextlib, sys, time
from pathlib import Path
from wsi_ncmi.extraction.staging import Stage
stage = Stage(Path(sys.argv[1]), 1 << 30)
stage.take([Path(sys.argv[2])], "", contextlib.nullcontext)
print("staged", flush=True)
time.sleep(60)
"""


def test_leftovers_of_killed_processes_go_and_those_of_live_ones_stay(tmp_path, folder):
    killed = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder), str(source(tmp_path, "a.svs"))], stdout=subprocess.PIPE
    )
    assert killed.stdout is not None
    assert killed.stdout.readline() == b"staged\n"
    alive = Stage(folder, GIB)
    assert sum(path.name == "a.svs" for path in folder.rglob("*")) == 1  # its process lives
    kept = alive.take([source(tmp_path, "b.svs")], "", contextlib.nullcontext)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    killed.stdout.close()
    later = Stage(folder, GIB)
    assert not list(folder.rglob("a.svs"))
    assert kept.files[0].exists()
    later.close()
    alive.close()
    assert left_in(folder) == []


def test_a_closed_stage_ends_a_copy_that_waits(tmp_path, folder):
    stage = Stage(folder, 150_000)
    stage.take([source(tmp_path, "a.svs")], "", contextlib.nullcontext)
    failures = []

    def second():
        try:
            stage.take([source(tmp_path, "bb.svs")], "", contextlib.nullcontext)
        except NotStagedError as error:
            failures.append(error)

    waiting = threading.Thread(target=second)
    waiting.start()
    while not stage._changed._waiters:  # type: ignore[attr-defined]
        time.sleep(0.01)
    stage.close()
    waiting.join(10)
    assert failures
    assert left_in(folder) == []


def test_room_is_shared_out_and_a_wrong_folder_is_one_sentence(tmp_path):
    plan = ResourcePlan(4, 1, PipelineConfig())
    assert with_stage(plan, None, None, 4) is plan
    assert with_stage(plan, tmp_path / "s", 8.0, 4).pipeline.stage_bytes == 2 * GIB
    half = shutil.disk_usage(tmp_path).free / 2
    assert prepare_stage(tmp_path / "s") == pytest.approx(half, rel=0.05)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"stage folder .* can't be written to .*--stage"):
        prepare_stage(tmp_path / "file" / "s")


def test_copies_are_not_found_as_slides(slides, tmp_path):
    write_slide(tmp_path / "a.tif", 1)
    prepare_stage(tmp_path)
    stage = Stage(tmp_path, GIB)
    stage.take([tmp_path / "a.tif"], "", contextlib.nullcontext)
    assert [found.relative for found in find_slides(tmp_path)] == ["a.tif"]
    stage.close()


def test_a_folder_of_that_name_without_a_lock_is_not_ours(folder):
    theirs = folder / ".wsi-ncmi-stage-mine" / "data"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("keep")
    Stage(folder, GIB).close()
    assert theirs.read_text() == "keep"
