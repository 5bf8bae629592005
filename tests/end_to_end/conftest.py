"""The demo, run once from an installed wheel outside the checkout; all tests of this folder share it."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from dataclasses import dataclass
from importlib.metadata import Distribution
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Demo:
    """What ``wsi-ncmi demo`` left, and the command that ran it."""

    folder: Path
    command: Path
    stdout: str
    ledger: tuple[dict[str, str], ...]

    def run(self, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.command), *arguments], cwd=cwd or self.folder.parent, env=clean_environment(),
            capture_output=True, text=True, check=False,
        )  # fmt: skip


def clean_environment() -> dict[str, str]:
    # Nothing of the checkout may help the installed wheel; no code path may reach for the network.
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "WSI_NCMI"))}
    return {
        **keep,
        "HF_HUB_OFFLINE": "1",
        "http_proxy": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
    }


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The console script of a wheel in a virtual environment of its own (its packages are this one's)."""
    root = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(root / "dist"), str(PROJECT)],
        check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = (root / "dist").glob("*.whl")
    environment = root / "env"
    venv.create(environment, with_pip=False, symlinks=True)
    packages = environment / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    # What pip does with a wheel of Python alone, in a second instead of ten, and where no pip is installed.
    with zipfile.ZipFile(wheel) as content:
        content.extractall(packages)
    # A plain path entry: the .pth of the editable install in that folder is not followed.
    (packages / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    (entry,) = Distribution.at(next(packages.glob("wsi_ncmi-*.dist-info"))).entry_points
    script = environment / "bin" / entry.name
    script.write_text(
        # As pip writes it; the guard matters, for spawned workers import this file again.
        f"#!{environment / 'bin' / 'python'}\nimport sys\nfrom {entry.module} import {entry.attr}\n"
        f"if __name__ == '__main__':\n    sys.exit({entry.attr}())\n"
    )
    script.chmod(0o755)
    return script


@pytest.fixture(scope="session")
def demo(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """The whole demo as a user gets it."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    result = subprocess.run(
        [str(installed), "demo", "--out", str(folder), "--quiet"], cwd=folder.parent,
        env=clean_environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    # As it stood then: later tests run the job again, which finds everything done.
    with (folder / "ledger.csv").open(newline="") as handle:
        ledger = tuple(csv.DictReader(handle))
    return Demo(folder, installed, result.stdout, ledger)
