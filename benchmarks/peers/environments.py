"""The environment of each peer: locked packages, and a checkout where it is on no registry."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.catalogue import OURS, PEERS

ROOT = Path(__file__).parents[2]


class MissingPeerError(Exception):
    """Why a peer takes no part."""


@dataclass(frozen=True)
class Environment:
    """How a program is called: its interpreter, where it runs and imports from, and its version."""

    python: str
    folder: Path
    version: str


def make(name: str, work: Path, git: str, ours: str) -> Environment:
    """The environment of a peer, made where it is not there.

    Args:
        name: Key of ``PEERS``, or ``ours``.
        work: Folder of everything that the comparison leaves.
        git: Address or folder below which ``owner/name`` repositories are cloned from.
        ours: Interpreter that has this project.

    Raises:
        MissingPeerError: It can't be installed; says why.
    """
    if name == OURS:
        return Environment(ours, ROOT, _said(["git", "describe", "--always", "--tags"], ROOT))
    peer = PEERS[name]
    folder = _checkout(peer.source, work / "checkouts", git) if peer.source else work
    place = work / "environments" / peer.lock
    python = str(place / "bin/python")
    if not (place / ".made").exists():
        venv = ["uv", "venv", "--quiet", "--clear", "--python", peer.python, str(place)]
        _do(venv, f"uv neither finds nor fetches Python {peer.python}")
        install = ["uv", "pip", "install", "--quiet", "--compile-bytecode", "--python", python]
        _do([*install, "--require-hashes", "-r", str(peer.lock_file)])
        if (folder / "pyproject.toml").exists():  # its build system is among the locked packages
            _do([*install, "--no-deps", "--no-build-isolation", str(folder)])
        (place / ".made").touch()
    say = f"import importlib.metadata as m; print(m.version({peer.package!r}))"
    version = _said([python, "-c", say], work) if peer.package else peer.source.split("@")[1][:7]
    return Environment(python, folder, version)


def _checkout(source: str, folder: Path, git: str) -> Path:
    repository, commit = source.split("@")
    place = folder / repository.replace("/", "+")
    if not (place / ".git").exists():
        if not git:
            raise MissingPeerError(f"it is cloned from {repository}: say from where with --git or PEERS_GIT")
        _do(["git", "clone", "--quiet", "--no-checkout", f"{git.rstrip('/')}/{repository}", str(place)])
    _do(["git", "-C", str(place), "checkout", "--quiet", commit])
    return place


def _do(command: list[str], failure: str = "") -> None:
    if shutil.which(command[0]) is None:
        raise MissingPeerError(f"{command[0]} is not on the PATH")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise MissingPeerError(f"{failure or ' '.join(command[:3])}: {lines[-1].strip()}")


def _said(command: list[str], folder: Path) -> str:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout.strip()


def variables(environment: Environment) -> dict[str, str]:
    """One thread a process, no GPU, no network, and only what the program itself imports from."""
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    quiet = {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(environment.folder)}
    return os.environ | one | quiet
