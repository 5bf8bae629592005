"""The folders: weights, slides, output; their permissions, space and speed."""

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from wsi_ncmi.core.files import existing_folder
from wsi_ncmi.doctor.finding import DoctorConfig, Finding
from wsi_ncmi.encoders.weights_folder import WEIGHTS_VARIABLE

_MIN_FREE_GB = 10.0
_PROBE_MB = 64
_FILES = 20
_SLOW_MB_S = 50.0
_SLOW_FILE_S = 0.1
_WEIGHTS = (".safetensors", ".pt", ".pth", ".bin", ".onnx")


def weights_folder(_: DoctorConfig) -> Iterator[Finding]:
    """The weights folder is set, holds weights, and can be read."""
    of = partial(Finding, "weights folder")
    value = os.environ.get(WEIGHTS_VARIABLE)
    if not value:
        yield of("warn", f"{WEIGHTS_VARIABLE} is not set", "Set it, or give --weights each time.")
        return
    folder = Path(value)
    if not folder.is_dir():
        yield of("fail", f"{WEIGHTS_VARIABLE} names no folder", "Make it or correct it.")
        return
    found = [path for path in folder.rglob("*") if path.suffix in _WEIGHTS]
    closed = [path.name for path in found if not os.access(path, os.R_OK)]
    if closed:
        detail = f"{len(closed)} files can't be read, the first is {closed[0]}"
        yield of("fail", detail, "Give this user the right to read them.")
    elif not found:
        remedy = "Fill it: wsi-ncmi encoders fetch or encoders import; in containers mount it at /weights."
        yield of("warn", "it holds no weights", remedy)
    else:
        yield of("ok", f"{len(found)} files of weights; encoders verify checks their hashes")


def offline_switch(_: DoctorConfig) -> Iterator[Finding]:
    """The switch that forbids downloads; a token that is set is not shown."""
    on = os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")
    token = "; a hub token is set" if os.environ.get("HF_TOKEN") else ""
    said = "is set" if on else "is not set; only encoders fetch uses the network"
    yield Finding("offline switch", "ok", f"HF_HUB_OFFLINE {said}{token}")


def slide_folder(config: DoctorConfig) -> Iterator[Finding]:
    """The slides can be read."""
    if config.slides is None:
        return
    if not config.slides.is_dir():
        yield Finding("slides", "fail", "there is no such folder", "Mount it, or correct --slides.")
        return
    files = [path for path in config.slides.rglob("*") if path.is_file()]
    closed = [path for path in files if not os.access(path, os.R_OK)]
    detail = (
        f"{len(closed)} of {len(files)} files can't be read" if closed else f"{len(files)} files can be read"
    )
    remedy = "Give this user the right to read them."
    yield Finding.of("slides", detail, bad=bool(closed), worst="fail", remedy=remedy)


def output_folder(config: DoctorConfig) -> Iterator[Finding]:
    """The steps that keep files whole and slides apart work in the output folder."""
    folder = existing_folder(config.out)
    probe = folder / f".wsi-ncmi-probe-{os.getpid()}"
    try:
        with probe.open("wb") as handle:
            handle.write(b"x")
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(probe, probe.with_suffix(".renamed"))
        probe = probe.with_suffix(".renamed")
        exclusive = not _can_take_again(probe)
        locks = _can_lock(probe)
    except OSError as error:
        yield Finding(
            "output folder", "fail", f"can't be written to ({error.strerror or error})",
            "Choose another with --out, change its permissions, or mount it for writing.",
        )  # fmt: skip
        return
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
    if not exclusive:
        yield Finding(
            "output folder", "fail", "two processes can make the same file, so claims don't hold",
            "Use another file system, or one job at a time.",
        )  # fmt: skip
        return
    detail = "write, rename and exclusive creation work"
    detail += "" if locks else ", locks (flock) don't, which HDF5 asks for"
    remedy = "Set HDF5_USE_FILE_LOCKING=FALSE; claims keep writers apart."
    yield Finding.of("output folder", detail, bad=not locks, remedy=remedy)


def disk_space(config: DoctorConfig) -> Iterator[Finding]:
    """Free space of the output's disk."""
    free = shutil.disk_usage(existing_folder(config.out)).free / 1e9
    remedy = "A thousand slides take about 10 GB of features; extract forecasts its own need."
    yield Finding.of("disk space", f"{free:.0f} GB free", bad=free < _MIN_FREE_GB, remedy=remedy)


def disk_speed(config: DoctorConfig) -> Iterator[Finding]:
    """A large file, and small ones as they are published."""
    folder = existing_folder(config.out)
    if not os.access(folder, os.W_OK):
        return
    probe = folder / f".wsi-ncmi-disk-probe-{os.getpid()}"
    try:
        wrote, read = _large(probe)
        each = _small(probe)
    except OSError as error:
        yield Finding(
            "disk speed", "fail", f"can't be measured ({error.strerror or error})", "Free space in --out."
        )
        return
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
    yield Finding.of(
        "disk speed",
        f"writes {wrote:.0f} MiB/s, reads {read:.0f} MiB/s, publishes a file in {each * 1e3:.1f} ms",
        bad=wrote < _SLOW_MB_S or each > _SLOW_FILE_S,
        remedy="Slow for slides and features; use a local disk or a faster share.",
    )


def _large(probe: Path) -> tuple[float, float]:
    """MiB/s written to the disk, and read back past the page cache where the system lets us."""
    block = os.urandom(1 << 20)
    started = time.perf_counter()
    with probe.open("wb") as handle:
        for _ in range(_PROBE_MB):
            handle.write(block)
        handle.flush()
        os.fsync(handle.fileno())
    wrote = _PROBE_MB / (time.perf_counter() - started)
    with probe.open("rb", buffering=0) as handle:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        started = time.perf_counter()
        while handle.read(1 << 20):
            pass
    return wrote, _PROBE_MB / (time.perf_counter() - started)


def _small(probe: Path) -> float:
    """Seconds to publish one small file: write, fsync, rename."""
    temporary = probe.with_suffix(".partial")
    started = time.perf_counter()
    for _ in range(_FILES):
        with temporary.open("wb") as handle:
            handle.write(b"x" * 4096)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, probe)
    return (time.perf_counter() - started) / _FILES


def _can_take_again(probe: Path) -> bool:
    try:
        probe.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _can_lock(probe: Path) -> bool:
    with probe.open("rb") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True
