"""Cores, memory and limits of this process, its user, and the clock."""

import contextlib
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

from wsi_ncmi.core.files import existing_folder
from wsi_ncmi.doctor.finding import DoctorConfig, Finding

_MIN_MEMORY = 4 << 30
_MIN_SHM = 256 << 20
_MIN_FILES = 1024
# No clock of a machine that runs this version can be before its year.
_EPOCH_S = 1735689600.0
_MAX_SKEW_S = 30.0


def cores(_: DoctorConfig) -> Iterator[Finding]:
    """Cores by affinity and cgroup quota."""
    from wsi_ncmi.parallel import affordable_workers, available_cores

    mine, host = available_cores(), os.cpu_count() or 1
    yield Finding(
        "cores", "ok", f"{mine} of the host's {host} may be used, {affordable_workers()} worker processes fit"
    )


def memory(_: DoctorConfig) -> Iterator[Finding]:
    """Memory by cgroup limit."""
    from wsi_ncmi.parallel import memory_limit

    limit = memory_limit()
    yield Finding.of(
        "memory", f"{limit / 2**30:.1f} GiB may be used",
        bad=limit < _MIN_MEMORY, remedy="Give at least 4 GiB, or use --workers 1.",
    )  # fmt: skip


def shared_memory_size(_: DoctorConfig) -> Iterator[Finding]:
    """The size of ``/dev/shm``: Ray keeps its objects there, and torch what its processes share."""
    from wsi_ncmi import parallel

    size = parallel.shared_memory()
    if size is None:
        yield Finding("shared memory", "warn", "there is no /dev/shm", "In containers: --shm-size 1g.")
        return
    yield Finding.of(
        "shared memory", f"{size / 2**20:.0f} MiB",
        bad=size < _MIN_SHM, remedy="In containers: --shm-size 1g (--engine ray wants it).",
    )  # fmt: skip


def limits(_: DoctorConfig) -> Iterator[Finding]:
    """Open files; readers keep several a slide."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    endless = soft == resource.RLIM_INFINITY
    yield Finding.of(
        "open files", "unlimited" if endless else f"{soft}", bad=not endless and soft < _MIN_FILES,
        remedy="Raise it: ulimit -n 4096, in containers --ulimit nofile=4096.",
    )  # fmt: skip


def user(_: DoctorConfig) -> Iterator[Finding]:
    """Root reads and writes what it should not, and its files are root's."""
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    yield Finding.of(
        "user", "root" if root else "not root", bad=root,
        remedy="Run as an ordinary user; in containers --user $(id -u):$(id -g).",
    )  # fmt: skip


def clock(config: DoctorConfig) -> Iterator[Finding]:
    """This machine's clock, and the one that gives files of the output folder their times."""
    now = time.time()
    if now < _EPOCH_S:
        yield Finding(
            "clock", "fail", time.strftime("%Y-%m-%d", time.gmtime(now)), "Set it (timedatectl set-ntp true)."
        )
        return
    skew = _skew(existing_folder(config.out))
    if skew is None:
        yield Finding("clock", "ok", "plausible; the output folder's could not be asked")
        return
    yield Finding.of(
        "clock", f"{abs(skew):.1f} s {'behind' if skew > 0 else 'ahead of'} that of the output folder",
        bad=abs(skew) > _MAX_SKEW_S,
        remedy="Claims follow the file server's clock and stay right; times in logs and records don't: use "
        "NTP.",
    )  # fmt: skip


def _skew(folder: Path) -> float | None:
    probe = folder / f".wsi-ncmi-clock-probe-{os.getpid()}"
    try:
        probe.touch()
        return probe.stat().st_mtime - time.time()
    except OSError:
        return None
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
