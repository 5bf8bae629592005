"""The Ray engine: what it costs over the local one, and whether a lost worker and a lost node cost any slide.

    python benchmarks/ray_engine.py kills [--slides 40] [--json]
    python benchmarks/ray_engine.py overhead [--slides 40] [--tissue-px 2048] [--json]

``kills`` starts a head and a worker node (two raylets with two addresses of the loopback device, one core
each), runs ``wsi-ncmi extract --engine ray``, ends it with SIGTERM, starts it again, kills a worker process
with SIGKILL in mid-job and later the worker node's raylet. What must hold: every slide is done once, every
file was published once and verifies, and all bytes equal a local run's. ``overhead`` runs the same job with
the local engine and on one node of all cores; the time counts from the first claim, when the first worker has
begun its first slide, to the last row. Exit code 1 when anything does not hold.

A token of its own guards the cluster, which ends with the script.
"""

import argparse
import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
from kill_test import contents, published, write_slide

from wsi_ncmi.extraction.ledger import read_journal, read_ledger
from wsi_ncmi.features import verify_folder
from wsi_ncmi.parallel import available_cores

SCRIPT = Path(__file__).resolve().parents[1] / "pipelines" / "distributed_extraction.py"
# Of one run alone: another one on this machine has its own.
NETWORK = f"127.{secrets.randbelow(200) + 20}.{secrets.randbelow(200) + 20}"
HEAD, WORKER = f"{NETWORK}.2", f"{NETWORK}.3"


def free_port() -> int:
    """A port that nobody listens on; Ray's head takes it on all addresses."""
    with socket.socket() as one:
        one.bind(("", 0))
        return int(one.getsockname()[1])


PORT = free_port()
ADDRESS = f"{HEAD}:{PORT}"


@contextlib.contextmanager
def cluster(folder: Path, cores: list[int]) -> Iterator[list[set[psutil.Process]]]:
    """A head and further nodes on this machine.

    Args:
        folder: For Ray's files; the path has to be short.
        cores: Of each node, the head's first.

    Yields:
        The processes of each node.
    """
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(token), RAY_USAGE_STATS_ENABLED="0")
    # Ray gives its workers a niceness of 15: beside other work they would starve.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - its name
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    nodes: list[set[psutil.Process]] = []
    try:
        for number, count in enumerate(cores):
            before = _processes(folder)
            command = [
                sys.executable, "-m", "ray.scripts.scripts", "start", f"--num-cpus={count}",
                "--disable-usage-stats", "--object-store-memory=100000000", f"--temp-dir={folder}",
            ]  # fmt: skip
            command += (
                ["--head", f"--node-ip-address={HEAD}", f"--port={PORT}", "--include-dashboard=false"]
                if number == 0
                else [f"--address={ADDRESS}", f"--node-ip-address={WORKER}"]
            )
            if number:
                command.remove(f"--temp-dir={folder}")
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            nodes.append(_processes(folder) - before)
        yield nodes
    finally:
        # A killed raylet's agents live on, under names that tell nothing.
        for process in {*_processes(folder), *(process for node in nodes for process in node)}:
            with contextlib.suppress(psutil.Error):
                process.kill()


def _processes(folder: Path) -> set[psutil.Process]:
    """Processes of the cluster: their command lines name its folder or its head, or their parents' do."""
    names = (str(folder), f"--address={ADDRESS}")
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            if process.pid != os.getpid() and any(name in word for word in words for name in names):
                found |= {process, *process.children(recursive=True)}
    return found


def named(processes: set[psutil.Process], words: str) -> list[psutil.Process]:
    """Those of the processes whose command line has the words, the oldest first."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            if words in " ".join(process.cmdline()):
                found.append(process)
    return sorted(found, key=lambda process: process.pid)


def start(slides: Path, out: Path, *flags: str) -> subprocess.Popen[bytes]:
    """The job that is measured, as a user would start it."""
    command = [
        sys.executable, "-m", "wsi_ncmi", "extract", str(slides), "--out", str(out), "--tile-px", "128",
        "--quiet", *flags,
    ]  # fmt: skip
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def start_on_ray(slides: Path, out: Path, *, by_script: bool) -> subprocess.Popen[bytes]:
    """The same job on the cluster, by the verb or by the script of ``pipelines/``."""
    if not by_script:
        return start(slides, out, "--engine", "ray", "--ray-address", ADDRESS)
    command = [sys.executable, str(SCRIPT), str(slides), str(out), ADDRESS, "grid.tile_px=128", "--quiet"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def done(out: Path) -> int:
    """Slides whose features are there."""
    return len(published(out))


def wait_until(condition: Callable[[], bool], job: subprocess.Popen[bytes]) -> None:
    """Waits while the job runs."""
    while not condition():
        if job.poll() is not None:
            raise SystemExit(f"The job ended too early, with exit code {job.returncode}.")
        time.sleep(0.01)


def make_slides(folder: Path, count: int, tissue_px: int) -> None:
    """Slides of different sizes, as those of a cohort are."""
    folder.mkdir()
    for number in range(count):
        write_slide(
            folder / f"slide_{number:02d}.tif",
            number,
            int(tissue_px * (0.75 + 0.5 * number / count)) // 128 * 128,
        )


def essence(out: Path) -> dict[str, bytes]:
    """What has to be equal byte for byte: features, outlines and thumbnails."""
    return {
        name: value
        for name, value in contents(out).items()
        if name.startswith(("features/", "tissue/", "thumbnails/"))
    }


def broken_off(slides: Path, out: Path) -> list[str]:
    """Ends a job in its midst with SIGTERM; what does not hold."""
    job = start_on_ray(slides, out, by_script=False)
    wait_until(lambda: done(out) > 0, job)
    job.terminate()
    code = job.wait()
    left = [
        str(path.relative_to(out))
        for path in out.rglob("*")
        if path.name.endswith(".partial") or path.parent.name == ".claims"
    ]
    return ([] if code == 130 else [f"SIGTERM gave exit code {code}"]) + [
        f"left over after SIGTERM: {name}" for name in left
    ]


def kills(arguments: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Breaks a job off, resumes it, kills a worker process, then a node."""
    slides, local, out = folder / "slides", folder / "local", folder / "out"
    make_slides(slides, arguments.slides, arguments.tissue_px)
    if start(slides, local, "--workers", "1").wait():
        raise SystemExit("The local run failed.")
    expected = essence(local)
    faults: list[str] = []
    ray = folder / "r"
    ray.mkdir()
    with cluster(ray, [1, 1]) as nodes:
        started = time.monotonic()
        if not arguments.brief:
            faults += broken_off(slides, out)
        job = start_on_ray(slides, out, by_script=arguments.script)
        wait_until(lambda: done(out) >= arguments.slides // 4, job)
        named(_processes(ray), "ray::RemoteWorker")[0].kill()
        first = done(out)
        seen = published(out)
        wait_until(lambda: done(out) >= arguments.slides // 2, job)
        for raylet in named(nodes[1], "raylet/raylet"):
            raylet.kill()
        second = done(out)
        seen |= published(out)
        code = job.wait()
        seconds = time.monotonic() - started
        time.sleep(0.5)
    if code:
        faults.append(f"exit code {code}")
    rows = read_ledger(out / "ledger.csv")
    faults += [f"{row.slide_id}: {row.status} {row.reason}" for row in rows if row.status == "failed"]
    if len(rows) != arguments.slides:
        faults.append(f"{len(rows)} rows")
    journal = Counter(row.slide_id for row in read_journal(out / "ledger.jsonl") if row.status == "done")
    faults += [f"{name} is in the journal {count} times" for name, count in journal.items() if count > 1]
    after = published(out)
    faults += [f"{name} was published twice" for name in seen if after.get(name) != seen[name]]
    faults += [verdict.problem for verdict in verify_folder(out) if not verdict.ok]
    found = essence(out)
    faults += [f"missing: {name}" for name in sorted(set(expected) - set(found))]
    faults += [f"left over: {name}" for name in sorted(set(found) - set(expected))]
    faults += [f"other bytes: {name}" for name in expected if found.get(name, b"") != expected[name]]
    return {
        "slides": arguments.slides, "worker_killed_after": first, "node_killed_after": second,
        "rows": len(rows), "in_journal": len(journal), "seconds": round(seconds, 1), "faults": faults,
    }  # fmt: skip


def timed(slides: Path, out: Path, *flags: str) -> dict[str, float]:
    """Seconds of a job until its first claim, and from there to its last row; its own cost of a slide."""
    begun = time.monotonic()
    job = start(slides, out, *flags)
    wait_until(lambda: any(out.glob("features/*/.claims/[!.]*")), job)
    ready = time.monotonic()
    driver = psutil.Process(job.pid)
    first = last = driver.cpu_times()
    while job.poll() is None:
        with contextlib.suppress(psutil.Error):
            if driver.status() != psutil.STATUS_ZOMBIE:
                last = driver.cpu_times()
        time.sleep(0.05)
    if job.returncode:
        raise SystemExit(f"The job failed with exit code {job.returncode}.")
    # The last row is the last thing that the engine does.
    end = (out / "ledger.jsonl").stat().st_mtime - time.time() + time.monotonic()
    spent = last.user + last.system - first.user - first.system
    return {
        "start_up_s": round(ready - begun, 2), "work_s": round(end - ready, 2),
        "driver_ms": round(spent * 1e3 / len(read_ledger(out / "ledger.csv")), 2),
    }  # fmt: skip


def overhead(arguments: argparse.Namespace, folder: Path) -> dict[str, object]:
    """The same job on both engines; with ``--work`` in as many calls as you like."""
    slides, ray = folder / "slides", folder / "r"
    if not slides.exists():
        make_slides(slides, arguments.slides, arguments.tissue_px)
    ray.mkdir(exist_ok=True)
    if "local" in arguments.parts:
        found = timed(slides, folder / "local", *arguments.flags)
        (folder / "local.json").write_text(json.dumps(found))
    if "ray" in arguments.parts:
        flags = (*arguments.flags, "--engine", "ray", "--ray-address", ADDRESS)
        with cluster(ray, [available_cores()]):
            found = timed(slides, folder / "ray", *flags)
        (folder / "ray.json").write_text(json.dumps(found))
    results = [folder / f"{part}.json" for part in ("local", "ray")]
    if not all(path.exists() for path in results):
        return {"parts": arguments.parts, "faults": []}
    local, on_ray = (json.loads(path.read_text()) for path in results)
    for found, name in ((local, "local"), (on_ray, "ray")):
        rows = read_ledger(folder / name / "ledger.csv")
        found["tiles_each"] = [row.tiles for row in rows]
        found["tiles_per_s"] = round(sum(row.tiles for row in rows) / found["work_s"], 2)
    # The parts may have been measured on different numbers of the slides.
    first, second = essence(folder / "local"), essence(folder / "ray")
    faults = [
        f"other bytes: {name}" for name in sorted(set(first) & set(second)) if first[name] != second[name]
    ]
    return {
        "cores": available_cores(), "local": local, "ray": on_ray, "faults": faults,
        "overhead": round(local["tiles_per_s"] / on_ray["tiles_per_s"] - 1, 4),
    }  # fmt: skip


def main() -> None:
    """Runs one of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("kills", "overhead"))
    parser.add_argument("--slides", type=int, default=40)
    parser.add_argument("--tissue-px", type=int, default=1024)
    parser.add_argument(
        "--folder", type=Path, default=None, help="for temporary files; its path has to be short"
    )
    parser.add_argument(
        "--work", type=Path, default=None, help="a folder that stays, in place of temporary files"
    )
    parser.add_argument(
        "--parts", nargs="*", default=["local", "ray"], help="of overhead; none makes the slides"
    )
    parser.add_argument("--brief", action="store_true", help="leave SIGTERM out of kills")
    parser.add_argument("--script", action="store_true", help="kills by pipelines/distributed_extraction.py")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--flags", nargs=argparse.REMAINDER, default=[], help="further flags of extract")
    arguments = parser.parse_args()
    act = kills if arguments.what == "kills" else overhead
    if arguments.work is not None:
        arguments.work.mkdir(exist_ok=True)
        result = act(arguments, arguments.work)
    else:
        with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="r") as temporary:
            result = act(arguments, Path(temporary))
    for fault in list(result["faults"])[:20]:  # type: ignore[call-overload]
        print(fault)
    print(json.dumps(result) if arguments.json else result)
    sys.exit(1 if result["faults"] else 0)


if __name__ == "__main__":
    main()
