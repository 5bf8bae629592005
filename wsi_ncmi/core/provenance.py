"""Record of a run, ``run.json``: configuration, versions, hardware and hashes, without any absolute path."""

import importlib.metadata
import os
import platform
import re
import sys
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from wsi_ncmi import __version__
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import parse_json, write_json

_SCHEMA = "wsi-ncmi-run/1"
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


def write_record(path: Path, *, config: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Writes ``run.json``.

    Args:
        path: Where to.
        config: The options in force; absolute paths in it are cut to their last part.
        more: Further JSON-ready entries (hashes, seeds, counts).

    Returns:
        What was written.
    """
    record = {
        "schema": _SCHEMA,
        "provenance": collect_provenance(),
        "config": relative_paths(config),
        **relative_paths(more),
    }
    write_json(path, record)
    return record


def read_record(path: Path) -> dict[str, Any]:
    """Reads a ``run.json``; an absent file gives an empty record.

    Raises:
        InputError: It is no such file.
    """
    if not path.is_file():
        return {}
    try:
        record = parse_json(path.read_text(encoding="utf-8"))
        if record["schema"] != _SCHEMA:
            raise InputError(f"{path} has the schema {record['schema']!r}; this version reads {_SCHEMA!r}.")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} can't be read as a run record ({error}).") from error
    return dict(record)


def relative_paths(value: Any) -> Any:
    """Makes a value JSON-ready and cuts absolute paths to their last part: folders name people and hosts."""
    if isinstance(value, Mapping):
        return {str(key): relative_paths(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [relative_paths(item) for item in value]
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, str):
        if "?" in value:  # ``stamp:clini.csv?slides=/home/me/slide.csv``: labels with settings
            file, _, settings = value.partition("?")
            return f"{relative_paths(file)}?{re.sub(r'(?<==)/[^&]*/(?=[^&/]+)', '…/', settings)}"
        head, colon, tail = value.partition(":")
        path = Path(tail) if colon and Path(tail).is_absolute() else Path(value)
        if path.is_absolute():
            return f"{head}:…/{path.name}" if colon and not value.startswith("/") else f"…/{path.name}"
    return value


def path_from(folder: Path, path: Path) -> str | None:
    """The way from a folder to a path, for a record that is found again when both are moved together.

    None where it would lead through the root or past the home folders: their names are of people and hosts.
    """
    start, end = os.path.normpath(folder.absolute()), os.path.normpath(path.absolute())
    try:
        common = Path(os.path.commonpath([start, end]))
    except ValueError:  # other drives
        return None
    homes = Path("~").expanduser().parents if "HOME" in os.environ else ()
    if common == Path(common.anchor) or common in homes:
        return None
    return Path(os.path.relpath(end, start)).as_posix()


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _memory_gib() -> float:
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)


def _gpus() -> dict[str, Any]:
    # Only where torch is loaded already: importing it costs seconds, and a job without it used no GPU.
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return {}
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {"gpus": ", ".join(names), "cuda": str(torch.version.cuda)}


@cache
def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"
