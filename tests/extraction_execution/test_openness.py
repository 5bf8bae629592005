"""A job opens no port, and its files are as open as the process's umask says (docs/explanation/security.md)."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path

import psutil


def listening(job: psutil.Process) -> set[tuple[int, object]]:
    """Ports of the network that a job and its workers wait at."""
    found = set()
    for process in [job, *job.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            found |= {
                (process.pid, connection.laddr)
                for connection in process.net_connections("inet")
                if connection.status == psutil.CONN_LISTEN or connection.raddr
            }
    return found


def test_a_job_opens_no_port_and_its_files_follow_the_umask(slides: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [
        sys.executable, "-m", "wsi_ncmi", "extract", slides, "--out", out, "--tile-px", "64", "--workers", "2", "--quiet",
    ]  # fmt: skip
    job = subprocess.Popen(command, umask=0o027, stdout=subprocess.DEVNULL)
    most, ports = 0, set()
    while job.poll() is None:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(job.pid)
            most = max(most, len(process.children(recursive=True)))
            ports |= listening(process)
        time.sleep(0.05)
    assert job.returncode == 0
    assert most >= 2, "no worker was seen"
    assert ports == set()
    modes = {path.relative_to(out): path.stat().st_mode & 0o777 for path in out.rglob("*")}
    assert len(list(out.glob("features/descriptor/*.h5"))) == 4
    wrong = {
        str(name): oct(mode)
        for name, mode in modes.items()
        if mode != (0o750 if (out / name).is_dir() else 0o640)
    }
    assert wrong == {}
