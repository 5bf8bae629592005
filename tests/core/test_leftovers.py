"""Temporary files of dead processes go, also where their number was given to somebody else; live ones stay."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from wsi_ncmi.core.leftovers import clean_folder, is_leftover, lived_at, remove_leftovers, start_ticks

HOUR_S = 3600


@pytest.fixture
def living():
    """A process that only waits."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.communicate()


def temporary(folder: Path, process_id: int, age_s: float) -> Path:
    path = folder / f".a.h5.{process_id}-0a1b.partial"
    path.touch()
    then = time.time() - age_s
    os.utime(path, (then, then))
    return path


def test_a_file_of_a_living_writer_stays(tmp_path: Path, living) -> None:
    path = temporary(tmp_path, living.pid, age_s=0)
    assert not is_leftover(path)
    remove_leftovers(tmp_path / "a.h5")
    assert path.exists()


def test_a_number_that_was_given_again_protects_nothing(tmp_path: Path, living) -> None:
    path = temporary(tmp_path, living.pid, age_s=60)  # older than the process of that number
    assert is_leftover(path)
    remove_leftovers(tmp_path / "a.h5")
    assert not path.exists()


def test_a_thread_with_that_number_protects_nothing(tmp_path: Path) -> None:
    ready, done = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: (ready.set(), done.wait()))
    thread.start()
    ready.wait()
    try:
        assert thread.native_id is not None
        os.kill(thread.native_id, 0)  # the system takes it for a process
        assert is_leftover(temporary(tmp_path, thread.native_id, age_s=60))
    finally:
        done.set()
        thread.join()


def test_a_zombie_is_dead(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # ended, and not yet reaped
    assert start_ticks(process.pid) == ""
    assert is_leftover(temporary(tmp_path, process.pid, age_s=0))
    process.wait()


def test_other_names_are_nobodys_leftovers(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    path.touch()
    assert not is_leftover(path)
    assert not is_leftover(tmp_path / ".a.h5.999999999-0a1b.partial")  # gone since it was listed


def test_moments_are_told_apart() -> None:
    assert lived_at(os.getpid(), time.time())
    assert not lived_at(os.getpid(), time.time() - 100 * HOUR_S)
    assert not lived_at(999_999_999, time.time())


def test_a_folder_is_cleaned_of_what_dead_processes_left(tmp_path: Path, living) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = [temporary(tmp_path, dead.pid, age_s=0), temporary(tmp_path, living.pid, age_s=60)]
    alive = tmp_path / f".b.h5.{living.pid}-0a1b.partial"
    alive.touch()
    others = [tmp_path / ".hidden", tmp_path / "whole.h5", tmp_path / ".odd.partial"]
    for path in others:
        path.touch()
    folder = tmp_path / f".model.{dead.pid}-0a1b.partial"
    (folder / "members").mkdir(parents=True)
    clean_folder(tmp_path)
    assert not any(path.exists() for path in (*left, folder))
    assert all(path.exists() for path in (alive, *others))
    clean_folder(tmp_path / "not there")
