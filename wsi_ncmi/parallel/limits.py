"""Limits of this process: cores by affinity and cgroup quota, memory by cgroup limit; and keeping to them."""

import ctypes
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/")
# cgroup v1 says "no limit" as the largest multiple of the page size.
_NO_LIMIT = 1 << 60
# Parameters of glibc's mallopt.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_NEVER = 2**31 - 1


def available_cores(root: Path = _ROOT) -> int:
    """Cores that this process may use: the least of affinity, host, and the quota of each cgroup above it.

    A quota of one and a half cores counts as one: a thread more than the quota is throttled with all others.

    Args:
        root: Root of the file system with ``proc`` and ``sys`` (another one in tests).

    Returns:
        At least 1.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [_quota_v2(folder) for folder in _v2_folders(root)]
    quotas += [_quota_v1(folder) for folder in _v1_folders(root, "cpu")]
    return max(1, math.floor(min([float(affinity), *(quota for quota in quotas if quota is not None)])))


def memory_limit(root: Path = _ROOT) -> int:
    """Bytes of memory that this process may use: the least of the host's and each cgroup's limit above it.

    Args:
        root: Root of the file system with ``proc`` and ``sys`` (another one in tests).
    """
    limits = [_number(folder / "memory.max") for folder in _v2_folders(root)]
    limits += [_number(folder / "memory.limit_in_bytes") for folder in _v1_folders(root, "memory")]
    host = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([host, *(limit for limit in limits if limit is not None and 0 < limit < _NO_LIMIT)])


def affordable_workers(bytes_each: int = 1 << 30) -> int:
    """Processes that may work at a time: one a core, and no more than the memory has room for.

    Args:
        bytes_each: What one of them takes.

    Returns:
        At least 1.
    """
    return max(1, min(available_cores(), int(memory_limit() * 0.8) // bytes_each))


def shared_memory(root: Path = _ROOT) -> int | None:
    """Bytes of ``/dev/shm`` (a container gets 64 MiB unless told otherwise); None where there is none.

    Args:
        root: Root of the file system (another one in tests).
    """
    try:
        status = os.statvfs(root / "dev/shm")
    except OSError:
        return None
    return status.f_blocks * status.f_frsize


def limit_threads(threads: int) -> int:
    """Lets torch use so many threads, if it is loaded at all; gives the number that it used before, or 0."""
    torch = sys.modules.get("torch")
    if torch is None:
        return 0
    before = int(torch.get_num_threads())
    if before != threads:
        torch.set_num_threads(threads)
    return before


def keep_large_buffers() -> bool:
    """Lets glibc serve buffers of any size from its heap, for the rest of this process.

    By default it maps every buffer above 32 MiB anew, and the system clears each page at its first touch. On
    one Zen 4 core that is a quarter of the time of squeezenet1_1 and of resnet50 at batch 16, channels last:
    92 against 127 and 9.0 against 11.6 tiles/s (other work on the machine). The process keeps the memory
    of its largest batch, which it would take again a moment later.

    Returns:
        Whether the C library is glibc and took it.
    """
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    settings = ((_ARENA_MAX, 1), (_TRIM_THRESHOLD, _NEVER), (_MMAP_MAX, 0))
    return all(library.mallopt(parameter, value) == 1 for parameter, value in settings)


def limit_memory(size: int) -> None:
    """Lets this process take no more than so many bytes of data from now on, where the system can."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (size, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    except (ImportError, ValueError, OSError):  # no such limit here, or a tighter one is set
        return


def peak_memory() -> int:
    """The most bytes that this process has held in memory so far; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _quota_v2(folder: Path) -> float | None:
    quota, _, period = _text(folder / "cpu.max").partition(" ")
    return _ratio(quota, period)


def _quota_v1(folder: Path) -> float | None:
    return _ratio(_text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us"))


def _ratio(quota: str, period: str) -> float | None:
    # "max" (v2) and -1 (v1) are no quota.
    if not quota.isdigit() or not period.isdigit() or int(period) == 0 or int(quota) == 0:
        return None
    return int(quota) / int(period)


def _v2_folders(root: Path) -> Iterator[Path]:
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        if number == "0" and rest.startswith(":"):
            yield from _upwards(root / "sys/fs/cgroup", rest[1:])


def _v1_folders(root: Path, controller: str) -> Iterator[Path]:
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if controller in controllers.split(","):
            # The mount bears the controllers' joint name; most systems link the single names to it.
            for name in dict.fromkeys((controller, controllers)):
                yield from _upwards(root / "sys/fs/cgroup" / name, group)


def _upwards(mount: Path, group: str) -> Iterator[Path]:
    """The group's folder and those above it, up to the mount.

    Inside a container the mount often is the container's own group, while ``/proc`` shows the host's path:
    folders that don't exist simply have no limits, and the mount itself is always asked.
    """
    parts = [part for part in group.split("/") if part not in ("", ".", "..")]
    for length in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:length])


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isdigit() else None
