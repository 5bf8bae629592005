"""What a run must record so that somebody else can repeat it: versions, hardware, command, time."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

from wsi_ncmi import __version__

__all__ = ["collect_provenance"]

_PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "openslide-python",
    "openslide-bin",
    "tiffslide",
    "h5py",
    "scikit-image",
    "scikit-learn",
    "pandas",
    "numpy",
    "scipy",
    "plotly",
    "matplotlib",
)


def collect_provenance() -> dict[str, Any]:
    """Collects software versions and hardware without any path, user or host name.

    Returns:
        JSON-ready mapping with ``software``, ``python``, ``platform``, ``cpu`` (model), ``cpu_count`` (cores
        this process may use), ``memory_gib``, ``gpus`` and ``cuda`` (where torch was loaded and sees any),
        ``packages`` (name → version or ``"missing"``) and ``utc`` (ISO 8601, seconds).
    """
    return {
        "software": f"wsi-ncmi {__version__}",
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cpu_count": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": _memory_gib(),
        **_gpus(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "verb": sys.argv[1] if len(sys.argv) > 1 and not sys.argv[1].startswith(("-", "/")) else "",
        "utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _memory_gib() -> float:
    import psutil

    return round(int(psutil.virtual_memory().total) / 2**30, 1)


def _gpus() -> dict[str, Any]:
    # Only where torch is loaded already: importing it costs seconds, and a job without it used no GPU.
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return {}
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {"gpus": ", ".join(names), "cuda": str(torch.version.cuda)}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"
