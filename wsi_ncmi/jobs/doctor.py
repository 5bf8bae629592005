"""The machine check: what this program needs, what is there, and what to do about the rest."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wsi_ncmi.jobs.extraction import WEIGHTS_VARIABLE

__all__ = ["Finding", "examine"]

_LEAST_FREE_GB = 10.0
_LEAST_SHM_MB = 256.0
_PROBE_MB = 64


@dataclass(frozen=True)
class Finding:
    """One line of the check.

    Attributes:
        name: What was looked at.
        status: ``ok``, ``warn`` (works, but) or ``fail`` (won't work).
        detail: What was found.
        remedy: What to do; empty when ok.
    """

    name: str
    status: Literal["ok", "warn", "fail"]
    detail: str
    remedy: str = ""


def examine(out: Path) -> list[Finding]:
    """Looks at the machine.

    Args:
        out: Folder whose disk is measured; it need not exist.

    Returns:
        One finding a check; a check that itself breaks is a ``fail`` with the reason.
    """
    checks: tuple[Callable[[Path], Iterator[Finding]], ...] = (
        _python, _openslide, _codecs, _torch, _weights, _offline, _limits, _shared_memory, _disk,
    )  # fmt: skip
    findings: list[Finding] = []
    for check in checks:
        try:
            findings.extend(check(out))
        except Exception as error:
            name = check.__name__.lstrip("_").replace("_", " ")
            reason = f"{type(error).__name__}: {error}"
            findings.append(Finding(name, "fail", reason, "Install the locked versions again (make setup)."))
    return findings


def _python(_: Path) -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    known = (3, 11) <= sys.version_info[:2] <= (3, 13)
    yield Finding(
        "python", "ok" if known else "fail", version, "" if known else "Use Python 3.11, 3.12 or 3.13."
    )


def _openslide(_: Path) -> Iterator[Finding]:
    import openslide

    library = openslide.__library_version__
    old = tuple(int(part) for part in library.split(".")[:2] if part.isdigit()) < (4, 0)
    yield Finding(
        "openslide",
        "warn" if old else "ok",
        f"library {library}, binding {importlib.metadata.version('openslide-python')}",
        "Old builds come with pixman 0.38, which garbles CAMELYON-17 slides: install openslide-bin."
        if old
        else "",
    )
    yield Finding("tiffslide", "ok", importlib.metadata.version("tiffslide"))


def _codecs(_: Path) -> Iterator[Finding]:
    import imagecodecs
    import numpy as np

    tile = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    broken = []
    for name, encode, decode in (
        ("JPEG", imagecodecs.jpeg8_encode, imagecodecs.jpeg8_decode),
        ("JPEG 2000", imagecodecs.jpeg2k_encode, imagecodecs.jpeg2k_decode),
    ):
        if decode(encode(tile)).shape != tile.shape:
            broken.append(name)
    yield Finding(
        "codecs",
        "fail" if broken else "ok",
        f"broken: {', '.join(broken)}" if broken else "JPEG and JPEG 2000 encode and decode",
        "Install imagecodecs again." if broken else "",
    )


def _torch(_: Path) -> Iterator[Finding]:
    import torch

    yield Finding("torch", "ok", torch.__version__)
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            card = torch.cuda.get_device_properties(number)
            yield Finding(f"gpu {number}", "ok", f"{card.name}, {card.total_memory / 2**30:.0f} GiB")
    else:
        driver = Path("/proc/driver/nvidia/version").exists()
        yield Finding(
            "gpu",
            "warn",
            "a driver is loaded but torch sees no device" if driver else "none; everything runs on the CPU",
            f"torch was built for CUDA {torch.version.cuda}: update the driver or pass the GPU on."
            if driver
            else "Fine for the descriptor and for training; large encoders want a GPU.",
        )


def _weights(_: Path) -> Iterator[Finding]:
    value = os.environ.get(WEIGHTS_VARIABLE)
    if not value:
        yield Finding(
            "weights folder", "warn", f"{WEIGHTS_VARIABLE} is not set", "Set it, or give --weights each time."
        )
    elif not Path(value).is_dir():
        yield Finding(
            "weights folder", "fail", f"{WEIGHTS_VARIABLE} names no folder", "Make it or correct it."
        )
    else:
        found = [p for p in Path(value).rglob("*") if p.suffix in (".safetensors", ".pt", ".pth", ".bin")]
        yield Finding("weights folder", "ok", f"{len(found)} weight files")


def _offline(_: Path) -> Iterator[Finding]:
    on = os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")
    yield Finding(
        "offline switch", "ok", "HF_HUB_OFFLINE is set" if on else "not set; no code path needs the network"
    )


def _limits(_: Path) -> Iterator[Finding]:
    from wsi_ncmi.scale import available_cores, memory_limit

    mine, all_cores = available_cores(), os.cpu_count() or 1
    yield Finding("cores", "ok", f"{mine} of the host's {all_cores} may be used")
    limit = memory_limit()
    small = limit < 4 * 2**30
    yield Finding(
        "memory",
        "warn" if small else "ok",
        f"{limit / 2**30:.1f} GiB",
        "Give at least 4 GiB, or use --workers 1." if small else "",
    )


def _shared_memory(_: Path) -> Iterator[Finding]:
    shm = Path("/dev/shm")  # noqa: S108 - its size is looked at, nothing is written
    if not shm.is_dir():
        yield Finding("shared memory", "warn", "there is no /dev/shm", "In containers: --shm-size 1g.")
        return
    size = shutil.disk_usage(shm).total / 2**20
    small = size < _LEAST_SHM_MB
    yield Finding(
        "shared memory",
        "warn" if small else "ok",
        f"{size:.0f} MiB",
        "In containers: --shm-size 1g." if small else "",
    )


def _disk(out: Path) -> Iterator[Finding]:
    folder = out.absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 1e9
    few = free < _LEAST_FREE_GB
    yield Finding(
        "disk space",
        "warn" if few else "ok",
        f"{free:.0f} GB free",
        "A thousand slides take about 10 GB of features." if few else "",
    )
    if not os.access(folder, os.W_OK):
        yield Finding("disk", "fail", "the folder can't be written to", "Choose another with --out.")
        return
    probe = folder / f".wsi-ncmi-disk-probe-{os.getpid()}"
    try:
        started = time.perf_counter()
        with probe.open("wb") as handle:
            handle.write(b"\0" * (_PROBE_MB << 20))
            handle.flush()
            os.fsync(handle.fileno())
        rate = _PROBE_MB / (time.perf_counter() - started)
    finally:
        probe.unlink(missing_ok=True)
    yield Finding("disk speed", "ok", f"writes {rate:.0f} MiB/s")
