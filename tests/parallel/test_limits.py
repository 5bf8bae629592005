"""Cores and memory by affinity and cgroup, on made-up file systems."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wsi_ncmi.parallel import limits
from wsi_ncmi.parallel.limits import affordable_workers, available_cores, memory_limit, shared_memory

HOST_BYTES = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def make(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


@pytest.fixture(autouse=True)
def many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)


V2 = {"proc/self/cgroup": "0::/a/b"}
V1 = {"proc/self/cgroup": "5:cpu,cpuacct:/job\n4:memory:/job"}


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 64),
        (V2 | {"sys/fs/cgroup/a/b/cpu.max": "max 100000"}, 64),
        (V2 | {"sys/fs/cgroup/a/b/cpu.max": "350000 100000"}, 3),
        (V2 | {"sys/fs/cgroup/a/b/cpu.max": "800000 100000", "sys/fs/cgroup/a/cpu.max": "200000 100000"}, 2),
        (
            V2 | {"sys/fs/cgroup/cpu.max": "150000 100000"},
            1,
        ),  # a container that sees its own group as the root
        (V2 | {"sys/fs/cgroup/a/b/cpu.max": "20000 100000"}, 1),  # never none
        (V2 | {"sys/fs/cgroup/a/b/cpu.max": "nonsense"}, 64),
        (V1 | {"sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "-1"}, 64),
        (
            V1
            | {
                "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "400000",
                "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000",
            },
            4,
        ),
        (
            V1
            | {
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "250000",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "50000",
            },
            5,
        ),
    ],
)
def test_cores_follow_the_strictest_quota(tmp_path: Path, files: dict[str, str], cores: int) -> None:
    assert available_cores(make(tmp_path, files)) == cores


def test_affinity_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 7}, raising=False)
    assert available_cores(make(tmp_path, V2 | {"sys/fs/cgroup/a/b/cpu.max": "800000 100000"})) == 3


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, HOST_BYTES),
        (V2 | {"sys/fs/cgroup/a/b/memory.max": "max"}, HOST_BYTES),
        (V2 | {"sys/fs/cgroup/a/b/memory.max": "300000", "sys/fs/cgroup/a/memory.max": "200000"}, 200_000),
        (V1 | {"sys/fs/cgroup/memory/job/memory.limit_in_bytes": "400000"}, 400_000),
        (V1 | {"sys/fs/cgroup/memory/job/memory.limit_in_bytes": "9223372036854771712"}, HOST_BYTES),
    ],
)
def test_memory_is_the_strictest_limit(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    assert memory_limit(make(tmp_path, files)) == expected


@pytest.mark.parametrize(
    ("cores", "memory", "each", "workers"),
    [
        (8, 64 << 30, 1 << 30, 8),
        (8, 4 << 30, 1 << 30, 3),
        (8, 1 << 30, 1 << 30, 1),
        (2, 64 << 30, 40 << 30, 1),
    ],
)
def test_workers_are_those_that_memory_has_room_for(
    monkeypatch: pytest.MonkeyPatch, cores: int, memory: int, each: int, workers: int
) -> None:
    monkeypatch.setattr(limits, "available_cores", lambda: cores)
    monkeypatch.setattr(limits, "memory_limit", lambda: memory)
    assert affordable_workers(each) == workers


def test_shared_memory_is_that_of_its_mount(tmp_path: Path) -> None:
    assert shared_memory(tmp_path) is None
    (tmp_path / "dev/shm").mkdir(parents=True)
    status = os.statvfs(tmp_path)
    assert shared_memory(tmp_path) == status.f_blocks * status.f_frsize
