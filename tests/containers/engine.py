"""buildah and podman with a store of their own: how the checks build images and run them."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BASE, CPU, GPU = "localhost/base", "localhost/wsi-ncmi:cpu", "localhost/wsi-ncmi:gpu"
USER = 10001


class Engine:
    """buildah and podman with a store of their own."""

    def __init__(self, work: Path) -> None:
        self.work = work
        (work / "tmp").mkdir(parents=True, exist_ok=True)
        self.environment = {**os.environ, "TMPDIR": str(work / "tmp")}
        self.store = [
            "--root", str(work / "store"), "--runroot", str(work / "run"), "--storage-driver", "overlay",
        ]  # fmt: skip

    def call(self, program: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs one command."""
        return subprocess.run(
            [program, *self.store, *arguments], env=self.environment, capture_output=True, text=True, check=check,
            cwd=ROOT,
        )  # fmt: skip

    def command(self, *arguments: str, options: tuple[str, ...] = (), network: str = "none") -> list[str]:
        """A hardened run of the CPU image."""
        return [
            "podman", *self.store, "--runtime", "runc", "run", "--rm", "--ulimit", "nofile=1024:1024", "--ulimit",
            "nproc=1024:1024", "--network", network, "--read-only", "--tmpfs", "/tmp", "--cap-drop", "all",
            "--security-opt", "no-new-privileges", "--pids-limit", "256", *options, CPU, *arguments,
        ]  # fmt: skip

    def run(
        self, *arguments: str, options: tuple[str, ...] = (), check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Runs the CPU image to its end."""
        return subprocess.run(
            self.command(*arguments, options=options),
            env=self.environment,
            capture_output=True,
            text=True,
            check=check,
        )

    def about(self, image: str) -> dict[str, Any]:
        """What podman knows of an image."""
        return dict(json.loads(self.call("podman", "image", "inspect", image).stdout)[0])


def demand(holds: bool, what: str) -> None:
    """Ends a check that does not hold."""
    if not holds:
        raise AssertionError(what)


def folder(engine: Engine, name: str, user: int = USER) -> Path:
    """A folder of the host that belongs to the image's user, or to another."""
    path = engine.work / "out" / name
    path.mkdir(parents=True, exist_ok=True)
    os.chown(path, user, user)
    return path


def cohort(engine: Engine) -> Path:
    """A dozen drawn slides."""
    slides = folder(engine, "cohort")
    if not list(slides.glob("slides/*.*")):
        ended = engine.run("synth", "/out", "--slides", "12", options=("-v", f"{slides}:/out"), check=False)
        demand(ended.returncode == 0, ended.stderr[-2000:])
    return slides / "slides"


def make_base(engine: Engine) -> None:
    """A Debian 12 with Python, from this machine's package source."""
    if engine.call("podman", "image", "exists", BASE, check=False).returncode == 0:
        return
    sources = Path("/etc/apt/sources.list.d/debian.sources").read_text().splitlines()
    mirror = next(line.split()[1] for line in sources if line.startswith("URIs:"))
    tar = engine.work / "base.tar"
    packages = "python3,python3-venv,python3-pip,ca-certificates"
    command = [
        "mmdebstrap", "--variant=minbase", "--mode=root", f"--include={packages}", "bookworm", str(tar), mirror,
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    engine.call("podman", "import", str(tar), BASE)
    tar.unlink()


def build(engine: Engine, dockerfile: str, tag: str, *options: str) -> float:
    """Builds an image; seconds."""
    started = time.monotonic()
    ended = engine.call(
        "buildah", "bud", "--isolation", "chroot", "--format", "docker", "--layers", "--pull=false", "--timestamp", "0",
        "-v", "/etc/ssl/certs:/etc/ssl/certs:ro", "--build-arg", f"BASE={BASE}", "--build-arg", "REVISION=check",
        *options, "-t", tag, "-f", f"docker/{dockerfile}", ".", check=False,
    )  # fmt: skip
    demand(ended.returncode == 0, ended.stderr[-2000:])
    return time.monotonic() - started
