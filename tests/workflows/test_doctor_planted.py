"""The machine check where four things are truly wrong: mounts of its own, no OpenSlide, no folder of weights."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]
PLANT = 'mount -t tmpfs -o size=8m tmpfs /dev/shm && mount -t tmpfs -o ro tmpfs "$1" && shift && exec "$@"'
LINE = re.compile(r"(?P<status>ok|warn|fail) +(?P<name>[^:]+): (?P<detail>.*?)(?: -> (?P<remedy>.+))?")


def may_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    attempt = [*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"]
    return subprocess.run(attempt, capture_output=True, check=False).returncode == 0


def test_planted_faults_are_found_and_their_remedies_said(tmp_path: Path) -> None:
    if not may_mount():
        pytest.skip("this process may not make mounts of its own")
    out = tmp_path / "out"
    out.mkdir()
    # What openslide-python raises where the library is missing.
    shim = 'raise ModuleNotFoundError("Couldn\'t locate OpenSlide shared library.")\n'
    (tmp_path / "openslide.py").write_text(shim)
    environment = {
        **os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}", "WSI_NCMI_WEIGHTS": str(tmp_path / "missing"),
    }  # fmt: skip
    doctor = [sys.executable, "-m", "wsi_ncmi", "doctor", "--probe-seconds", "0", "--out", out]
    ended = subprocess.run(
        [*NAMESPACE, "sh", "-c", PLANT, "sh", out, *doctor], capture_output=True, text=True, check=False,
        env=environment,
    )  # fmt: skip
    assert ended.returncode == 1, ended.stderr
    found = {match["name"]: match for match in map(LINE.fullmatch, ended.stdout.splitlines()) if match}
    assert {name: found[name]["status"] for name in found if name in (
        "shared memory", "openslide", "weights folder", "output folder", "codecs", "torch", "python",
    )} == {
        "shared memory": "warn", "openslide": "fail", "weights folder": "fail", "output folder": "fail",
        "codecs": "ok", "torch": "ok", "python": "ok",
    }  # fmt: skip
    assert found["shared memory"]["detail"] == "8 MiB"
    assert "--shm-size 1g" in found["shared memory"]["remedy"]
    assert "pip install openslide-python openslide-bin" in found["openslide"]["remedy"]
    assert "Read-only file system" in found["output folder"]["detail"]
    assert all(match["remedy"] for match in found.values() if match["status"] != "ok")
