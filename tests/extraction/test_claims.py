"""Claims: one process a slide, whatever dies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from wsi_ncmi.core.errors import JobStoppedError
from wsi_ncmi.extraction.claims import claim, is_alive

CODE = """
import sys, time
from pathlib import Path
from wsi_ncmi.extraction.claims import claim
with claim(Path(sys.argv[1])) as ours:
    print(ours, flush=True)
    sys.stdin.readline()
"""


def hold(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.communicate()  # closes its input and waits


def test_a_claim_excludes_and_is_released(tmp_path: Path) -> None:
    path = tmp_path / "slide"
    with claim(path) as first, claim(path) as second:
        assert (first, second) == (True, False)
    assert list(tmp_path.iterdir()) == []
    with claim(path) as again:
        assert again


def test_a_live_process_keeps_its_claim_and_a_dead_one_loses_it_at_once(tmp_path: Path) -> None:
    path = tmp_path / "slide"
    process = hold(path)
    with claim(path) as ours:
        assert not ours
    process.kill()
    process.wait()
    end(process)
    assert path.exists()
    with claim(path) as ours:
        assert ours
    assert list(tmp_path.iterdir()) == []


def test_a_claim_of_another_host_lapses_with_its_heartbeat(tmp_path: Path) -> None:
    path = tmp_path / "slide"
    path.write_text(json.dumps({"token": "x", "host": "elsewhere", "pid": os.getpid(), "started": "1"}))
    os.utime(path, (time.time() - 100, time.time() - 100))
    with claim(path) as ours:
        assert not ours
    os.utime(path, (time.time() - 130, time.time() - 130))
    with claim(path) as ours:
        assert ours


def test_an_unfinished_claim_lapses_too(tmp_path: Path) -> None:
    path = tmp_path / "slide"
    path.touch()
    with claim(path) as ours:
        assert not ours
    os.utime(path, (time.time() - 130, time.time() - 130))
    with claim(path) as ours:
        assert ours


def test_a_takeover_that_died_blocks_nobody(tmp_path: Path) -> None:
    path = tmp_path / "slide"
    for file in (path, tmp_path / ".takeover-slide"):
        file.write_text(json.dumps({"token": "x", "host": "elsewhere", "pid": 1, "started": "1"}))
        os.utime(file, (1, 1))
    with claim(path) as ours:
        assert ours
    assert list(tmp_path.iterdir()) == []


def test_a_number_given_again_is_not_the_same_process(tmp_path: Path) -> None:
    path = tmp_path / "slide"
    with claim(path):
        holder = json.loads(path.read_text())
    assert is_alive(holder) is True
    assert is_alive(holder | {"started": "1"}) is False
    assert is_alive(holder | {"host": "elsewhere"}) is None


def test_the_heart_beats(tmp_path: Path) -> None:
    path = tmp_path / "slide"
    with claim(path, heartbeat_s=0.02) as ours:
        assert ours
        os.utime(path, (1, 1))
        for _ in range(500):
            if path.stat().st_mtime > 1:
                break
            time.sleep(0.01)
        assert path.stat().st_mtime > 1


def test_a_void_claim_has_one_heir(tmp_path: Path) -> None:
    """Many threads find the same dead claim; never do two of them hold it at once."""
    path = tmp_path / "slide"
    inside, most, lock, wins = 0, 0, threading.Lock(), 0

    def contend() -> None:
        nonlocal inside, most, wins
        with claim(path) as ours:
            if ours:
                with lock:
                    inside, wins = inside + 1, wins + 1
                    most = max(most, inside)
                time.sleep(0.005)
                with lock:
                    inside -= 1

    for _ in range(40):
        path.write_text(json.dumps({"token": "x", "host": "elsewhere", "pid": 1, "started": "1"}))
        os.utime(path, (1, 1))
        threads = [threading.Thread(target=contend) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert most == 1
    assert wins >= 40
    assert list(tmp_path.iterdir()) == []


def test_a_claim_that_can_not_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found on a full disk: the empty file stood for 120 s in the way of the job that came after."""
    path = tmp_path / "slide"
    with monkeypatch.context() as full:
        full.setattr("wsi_ncmi.extraction.claims.os.write", lambda *_: 0)
        with pytest.raises(JobStoppedError, match="no space left"), claim(path):
            raise AssertionError("unreachable")
    assert list(tmp_path.iterdir()) == []
    with claim(path) as ours:
        assert ours
