"""What a run must record so that somebody else can repeat it: versions, hardware, command, time."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
import time
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
)


def collect_provenance() -> dict[str, Any]:
    """Collects software versions and hardware without any path, user or host name.

    Returns:
        JSON-ready mapping with ``software``, ``python``, ``platform``, ``cpu_count`` (cores this process may
        use), ``packages`` (name → version or ``"missing"``) and ``utc`` (ISO 8601, seconds).
    """
    return {
        "software": f"wsi-ncmi {__version__}",
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu_count": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "verb": sys.argv[1] if len(sys.argv) > 1 and not sys.argv[1].startswith(("-", "/")) else "",
        "utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"
