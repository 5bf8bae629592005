"""A full disk, a disk that turns read-only, and one that is unmounted under a running job: real small ones."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from wsi_ncmi.core.errors import JobStoppedError
from wsi_ncmi.encoders import EncoderConfig
from wsi_ncmi.extraction.execution.local import run_slides
from wsi_ncmi.features import verify_folder
from wsi_ncmi.features.storage import check_same_mount

OPTIONS = EncoderConfig(batch_size=16)


def mount(*arguments: str) -> bool:
    if shutil.which("mount") is None:
        return False
    return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if not mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)):
        pytest.skip("mounting a file system is not permitted here")
    yield folder
    while folder.is_mount():
        subprocess.run(["umount", "-l", str(folder)], check=True)


def whole(out: Path, tasks: list, reference: dict[str, bytes]) -> None:
    """One resume, and the folder is as if nothing had happened."""
    rows = run_slides(tasks, OPTIONS)
    assert {row.status for row in rows} <= {"done", "skipped"}
    found = {
        str(path.relative_to(out)): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and path.name != "ledger.jsonl"
    }
    assert found == reference
    assert all(verdict.ok for verdict in verify_folder(out))


@pytest.fixture
def reference(tasks, tmp_path: Path) -> dict[str, bytes]:
    out = tmp_path / "undisturbed"
    run_slides(tasks(out=out), OPTIONS)
    files = (path for path in out.rglob("*") if path.is_file() and path.name != "ledger.jsonl")
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_stops_the_job_and_costs_nothing_else(tasks, disk: Path, reference, workers: int) -> None:
    todo = tasks(out=disk / "out")
    ballast = disk / "ballast"
    ballast.write_bytes(bytes((1 << 20) - 60_000))
    with pytest.raises(JobStoppedError, match="no space left"):
        run_slides(todo, OPTIONS, workers=workers)
    assert list(disk.rglob("*.partial")) == []
    ballast.unlink()
    whole(disk / "out", todo, reference)


def test_a_disk_that_turns_read_only_stops_the_job(tasks, disk: Path, reference) -> None:
    todo = tasks(out=disk / "out")
    run_slides(todo[:1], OPTIONS)
    assert mount("-o", "remount,ro", str(disk))
    with pytest.raises(JobStoppedError, match="written"):
        run_slides(todo, OPTIONS)
    assert mount("-o", "remount,rw", str(disk))
    whole(disk / "out", todo, reference)


def test_a_disk_unmounted_under_the_job_stops_it_and_nothing_goes_elsewhere(
    tasks, disk: Path, tmp_path: Path
) -> None:
    todo = tasks(out=disk / "out")

    def unmount(_: object) -> None:
        if disk.is_mount():
            subprocess.run(["umount", "-l", str(disk)], check=True)

    with pytest.raises(JobStoppedError, match="mount"):
        run_slides(todo, OPTIONS, on_row=unmount)
    assert list(disk.iterdir()) == [], "files went to the local disk below the mount point"


def test_another_folder_in_the_place_of_the_output_stops_the_job(tasks, tmp_path: Path) -> None:
    todo = tasks(out=tmp_path / "out")

    def swap(_: object) -> None:
        if not (tmp_path / "moved").exists():
            (tmp_path / "out").rename(tmp_path / "moved")
            (tmp_path / "out").mkdir()

    with pytest.raises(JobStoppedError, match="Another folder"):
        run_slides(todo, OPTIONS, on_row=swap)
    assert list((tmp_path / "out").rglob("*.h5")) == []


def test_a_relative_output_folder_is_the_one_of_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A notebook that changes its folder between two jobs has two output folders of the same name."""
    for name in ("one", "two"):
        (tmp_path / name / "out").mkdir(parents=True)
        monkeypatch.chdir(tmp_path / name)
        check_same_mount(Path("out"))
    Path("elsewhere").mkdir()
    shutil.rmtree("out")
    Path("elsewhere").rename("out")
    with pytest.raises(JobStoppedError, match="Another folder stands"):
        check_same_mount(Path("out"))
