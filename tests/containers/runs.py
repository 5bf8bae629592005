"""The CPU image at work: shut in as a hospital would, with limits, with signals, and the whole job."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
from pathlib import Path

from engine import USER, Engine, cohort, demand, folder

SHELLS = ("/bin/sh", "/bin/dash", "/bin/bash")
STOP_S = 10.0


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
    slides, out = cohort(engine), folder(engine, "limits")
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
    slides, out = cohort(engine), folder(engine, "terminated")
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
    slides, out = cohort(engine), folder(engine, "health")
    mounts = ("-v", f"{slides}:/slides:ro", "-v", f"{out}:/out")
    command = engine.command("extract", "/slides", "--out", "/out", options=("--name", "healthy", *mounts))
    process = subprocess.Popen(
        command, env=engine.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    check = ("python3", "-m", "wsi_ncmi.core.heartbeat")
    while engine.call("podman", "exec", "healthy", *check, check=False).returncode:
        demand(process.poll() is None, "the job ended too early")
        time.sleep(0.2)
    stuck = engine.call("podman", "exec", "-e", "WSI_NCMI_STALL_S=0", "healthy", *check, check=False)
    demand(stuck.returncode == 1, stuck.stdout)
    engine.call("podman", "kill", "--signal", "TERM", "healthy")
    process.wait(60)
    return stuck.stdout.strip()


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
