"""The sign of life that a container's health check reads."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from wsi_ncmi.core import heartbeat
from wsi_ncmi.core.heartbeat import FILE_VARIABLE, STALL_VARIABLE, state
from wsi_ncmi.core.progress import progress_for


@pytest.mark.parametrize(
    ("age_s", "limit", "alive"), [(10, None, True), (3601, None, False), (10, "5", False), (4, "5", True)]
)
def test_age_decides(tmp_path: Path, age_s: float, limit: str | None, alive: bool) -> None:
    file = tmp_path / "beat"
    file.touch()
    environment = {FILE_VARIABLE: str(file)} | ({STALL_VARIABLE: limit} if limit else {})
    assert state(environment, file.stat().st_mtime + age_s)[0] is alive


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    assert state({})[0]
    assert state({FILE_VARIABLE: str(tmp_path / "none")}) == (
        False,
        f"There is no file {tmp_path / 'none'}: the job has not begun.",
    )
    (tmp_path / "beat").touch()
    alive, sentence = state({FILE_VARIABLE: str(tmp_path / "beat"), STALL_VARIABLE: "soon"})
    assert not alive
    assert "'soon'" in sentence


@pytest.mark.parametrize("quiet", [True, False])
def test_progress_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quiet: bool) -> None:
    monkeypatch.setenv(FILE_VARIABLE, str(tmp_path / "beat"))
    monkeypatch.setattr(heartbeat, "_last", -1.0)
    with progress_for(quiet=quiet).task("work", 2) as task:
        task.advance()
    assert (tmp_path / "beat").exists()


def test_the_check_is_a_light_program(tmp_path: Path) -> None:
    script = (
        "import sys, wsi_ncmi.core.heartbeat\nsys.exit(bool({'torch', 'numpy', 'typer'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
    ended = subprocess.run(
        [sys.executable, "-m", "wsi_ncmi.core.heartbeat"], check=False, capture_output=True, text=True,
        env={**os.environ, FILE_VARIABLE: str(tmp_path / "none")},
    )  # fmt: skip
    assert ended.returncode == 1
    assert "has not begun" in ended.stdout


def test_a_service_is_ready_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "beat"
    monkeypatch.setenv(FILE_VARIABLE, str(file))
    heartbeat.beat("starting")
    alive, sentence = state()
    assert (alive, "is starting" in sentence) == (False, True)
    heartbeat.beat("ready")
    assert state()[0]
    assert file.read_text() == f"ready {os.getpid()}\n"
    assert not state(now_s=file.stat().st_mtime - 4000)[0]  # the clock was set back, and nothing since


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool) -> None:
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(f"\0{name[1:]}" if abstract else name)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name[1:]}" if abstract else name)
        monkeypatch.setattr(heartbeat, "_last", -1.0)
        heartbeat.beat()
        heartbeat.beat("ready")
        assert [systemd.recv(100) for _ in range(2)] == [b"WATCHDOG=1", b"READY=1\nWATCHDOG=1"]


@pytest.mark.parametrize(("age_s", "killed"), [(10, False), (7200, True)])
def test_the_check_ends_a_service_that_is_stuck(tmp_path: Path, age_s: float, killed: bool) -> None:
    with subprocess.Popen(["sleep", "30"]) as job:
        file = tmp_path / "beat"
        file.write_text(f"ready {job.pid}\n")
        os.utime(file, (file.stat().st_mtime - age_s,) * 2)
        check = [sys.executable, "-m", "wsi_ncmi.core.heartbeat"]
        environment = {**os.environ, FILE_VARIABLE: str(file)}
        assert subprocess.run(check, check=False, env=environment).returncode == killed
        assert job.poll() is None  # without the flag it is told only
        assert subprocess.run([*check, "--restart"], check=False, env=environment).returncode == killed
        if killed:
            assert job.wait(5) == -9
        job.kill()
