"""A real control group with one core and 2 GiB: one worker, and the memory holds."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

ROOT = Path("/sys/fs/cgroup")
LIMIT = 2 << 30


@contextlib.contextmanager
def group() -> Iterator[tuple[list[Path], Path]]:
    """Makes a group of one core and 2 GiB; gives its folders and the file that tells its peak."""
    name = f"wsi-ncmi-test-{os.getpid()}"
    second = (ROOT / "cgroup.controllers").is_file()
    folders = [ROOT / name] if second else [ROOT / "cpu" / name, ROOT / "memory" / name]
    settings = (
        {"cpu.max": "100000 100000", "memory.max": str(LIMIT)}
        if second
        else {"cpu.cfs_quota_us": "100000", "memory.limit_in_bytes": str(LIMIT)}
    )
    try:
        for folder in folders:
            folder.mkdir()
        for file, value in settings.items():
            path = next(folder / file for folder in folders if (folder / file).exists())
            path.write_text(value)
        peak = next(
            folder / file
            for folder in folders
            for file in ("memory.peak", "memory.max_usage_in_bytes")
            if (folder / file).exists()
        )
    except (OSError, StopIteration):
        for folder in folders:
            with contextlib.suppress(OSError):
                folder.rmdir()
        pytest.skip("no control group can be made here")
    try:
        yield folders, peak
    finally:
        for folder in folders:
            for _ in range(50):
                try:
                    folder.rmdir()
                    break
                except OSError:
                    time.sleep(0.1)  # its last process is just going


def test_one_core_and_two_gib_mean_one_worker(slides: Path, tmp_path: Path) -> None:
    with group() as (folders, peak):
        # A shell that enters the group and becomes the job: all of its processes are born in there.
        enter = "".join(f"echo $$ > {folder}/cgroup.procs; " for folder in folders)
        command = [
            sys.executable, "-m", "wsi_ncmi", "extract", str(slides), "--out", str(tmp_path / "out"), "--tile-px", "64",
            "--timeout-per-slide", "600", "--quiet",
        ]  # fmt: skip
        job = subprocess.Popen(["sh", "-c", f'{enter} exec "$@"', "sh", *command])
        most = 0
        while job.poll() is None:
            with contextlib.suppress(psutil.Error):
                children = psutil.Process(job.pid).children(recursive=True)
                spawned = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
                most = max(most, len(spawned))
            time.sleep(0.05)
        assert job.returncode == 0
        used = int(peak.read_text())
    assert (
        1 <= most <= 2
    )  # beside the one worker, for a moment, the process that opens slides for the inventory
    assert 100 << 20 < used <= LIMIT
