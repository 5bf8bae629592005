"""The sign of life that a container's health check reads."""

from __future__ import annotations

import os
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
