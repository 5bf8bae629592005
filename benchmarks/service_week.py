"""A week of a watched folder in minutes: bursts, restarts, another model, a full disk, a hanging slide.

    python benchmarks/service_week.py [--slides 500] [--minutes 60] [--kinds NAME ...] [--seed 0] [--json]

Drawn slides of three contents arrive in bursts at random times in the inbox of `predict --watch` while the
service is killed (SIGKILL) and stopped (SIGTERM), a second model is promoted and rolled back by a link, its
disk (a small file system, where mounting is permitted) is filled, the worker of one slide is halted for ever,
and the clock is set back by a day. A supervisor starts the service again whenever it ends, as systemd would.
What must hold when nothing waits any more: every slide was answered once, by either model; the audit trail is
whole, counts as the metrics do, and says of each slide what the table says; the hook took every answer; the
hanging slide and a broken one are in quarantine; the memory of the main process does not grow. Exit code 1
when anything does not hold.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from disturbed_commands import fill, mount
from kill_test import write_slide

from wsi_ncmi.core.interrupts import sigterm_as_interrupt
from wsi_ncmi.service import check_audit_log

KINDS = ("kill", "stop", "models", "hang", "clock", "disk")
_DISK = "400m"
_FULL_S = 20.0
_GROWTH = 1.05
_NOTE_S = 5.0
# Read by each Python process of the service: its clock is set back when a file appears.
_CLOCK = """
import os, time
_real = time.time
time.time = lambda: _real() - (86400.0 if os.path.exists(os.environ["CLOCK_JUMP"]) else 0.0)
"""


class Supervised:
    """The service, started again whenever it ended.

    Args:
        command: The service.
        environment: Of the process.
    """

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._command, self._environment = command, environment
        self.codes: Counter[int] = Counter()
        self.memory: list[list[int]] = []
        self._process: subprocess.Popen[bytes] | None = None

    def look(self) -> None:
        """Starts it where it is not running, and notes the memory of its main process."""
        if self._process is not None and self._process.poll() is not None:
            self.codes[self._process.returncode] += 1
            self._process = None
        if self._process is None:
            self._process = subprocess.Popen(self._command, env=self._environment)
            self.memory.append([])
            Path(self._environment["WSI_NCMI_HEARTBEAT"]).unlink(missing_ok=True)
        try:
            pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        except (OSError, IndexError):  # it ends just now
            return
        self.memory[-1].append(pages * os.sysconf("SC_PAGE_SIZE") >> 20)

    @property
    def ready(self) -> bool:
        """Whether it says that it takes slides."""
        try:
            return Path(self._environment["WSI_NCMI_HEARTBEAT"]).read_text().startswith("ready")
        except OSError:
            return False

    def send(self, number: int) -> None:
        """Sends a signal."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def stop(self) -> int:
        """Ends it as a supervisor does; its exit code."""
        self.send(signal.SIGTERM)
        return self._process.wait(60) if self._process is not None else 0


def write_models(folder: Path) -> list[Path]:
    """Two bundles of small models on the weight-free encoder, with statistics of their training."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from tests.prediction.models import export, make_bundle, write_run
    from tests.workflows.conftest import GRID, WIDTH

    paths = []
    for number in (1, 2):
        run = write_run(folder / f"run{number}" / "ncmi", folds=number, width=WIDTH, **GRID)
        paths.append(export(make_bundle(run, width=WIDTH), run, folder / f"model{number}.zip"))
    return paths


def halt_worker(out: Path, name: str) -> bool:
    """Halts the process that has claimed a slide; whether there was one."""
    for claim in out.glob(f"features/*/.claims/*{name}*"):
        try:
            os.kill(int(json.loads(claim.read_bytes())["pid"]), signal.SIGSTOP)
        except (OSError, ValueError, KeyError):
            continue
        return True
    return False


def metrics_of(out: Path) -> dict[str, float]:
    """Sample → value of the textfile."""
    rows = [
        line.rpartition(" ") for line in (out / "metrics.prom").read_text().splitlines() if line[0] != "#"
    ]
    return {name.removeprefix("wsi_ncmi_"): float(value) for name, _, value in rows}


def entries_of(out: Path) -> list[dict[str, Any]]:
    """All entries of the audit trail."""
    files = sorted((out / "audit-log").glob("*.jsonl"))
    return [json.loads(line) for path in files for line in path.read_bytes().splitlines()]


def faults_of(out: Path, taken: Path, expected: set[str], bad: int) -> list[str]:
    """What does not hold at the end, in words."""
    faults = []
    check = check_audit_log(out / "audit-log")
    if check.problem:
        return [f"the audit trail is broken: {check.problem}"]
    entries, faults = entries_of(out), []
    last: dict[str, dict[str, Any]] = {}
    for entry in entries:
        if entry["event"] == "answer":
            if entry["slide_id"] in last:
                faults.append(f"{entry['slide_id']} was answered twice")
            last[entry["slide_id"]] = entry
    faults += [f"{name} was never answered" for name in sorted(expected - set(last))]
    with (out / "predictions.csv").open(newline="") as handle:
        table = {row["slide_id"]: (row["decision"], row["model_digest"]) for row in csv.DictReader(handle)}
    said = {name: (entry["answer"]["decision"], entry["model"]["digest"]) for name, entry in last.items()}
    faults += [
        f"{name}: the table says {table.get(name)}, the audit trail {answer}"
        for name, answer in said.items()
        if table.get(name) != answer
    ]
    values = metrics_of(out)
    counted = Counter(entry["answer"]["status"] for entry in entries if entry["event"] == "answer")
    for outcome in ("decided", "abstained", "failed"):
        if values[f'answers_total{{outcome="{outcome}"}}'] != counted[outcome]:
            faults.append(f"metrics and audit trail count {outcome} differently")
    if values["audit_log_entries_total"] != len(entries):
        faults.append("metrics and audit trail count entries differently")
    if values['slides{state="waiting"}'] or values["undelivered_answers"]:
        faults.append("something waits, by the metrics")
    quarantined = values['slides{state="quarantined"}']
    if quarantined != bad:
        faults.append(f"{quarantined:g} slides in quarantine, not {bad}")
    delivered = set(taken.read_text().split())
    faults += [
        f"the hook never got the latest answer of {name}"
        for name, entry in last.items()
        if entry["sha256"] not in delivered
    ]
    return faults


def main() -> None:
    """Runs the week."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slides", type=int, default=500)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds a slide may take")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--memory", type=Path, help="CSV for the memory of the main process over time")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    with sigterm_as_interrupt():
        run(arguments)


def run(arguments: argparse.Namespace) -> None:
    """Makes the folders and lets the week happen; ends the program."""
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        inbox, disk, taken, jump = (folder / name for name in ("inbox", "disk", "taken", "jump"))
        for each in (inbox, disk):
            each.mkdir()
        try:
            mount("-t", "tmpfs", "-o", f"size={_DISK}", "tmpfs", disk)
            mounted = True
        except SystemExit as error:
            print(f"No full disk: {error}")
            mounted = False
        try:
            report = week(arguments, rng, folder, inbox, disk / "out", taken, jump, mounted)
        finally:
            if mounted:
                subprocess.run(["umount", "-l", disk], check=True)
    for fault in report["faults"][:20]:
        print(fault)
    if arguments.json:
        print(json.dumps(report))
    sys.exit(1 if report["faults"] else 0)


def week(
    arguments: argparse.Namespace, rng: random.Random, folder: Path, inbox: Path, out: Path, taken: Path,
    jump: Path, mounted: bool,
) -> dict[str, Any]:  # fmt: skip
    """Lets it happen; what was seen, and what does not hold."""
    models, current = write_models(folder), folder / "current"
    taken.touch()
    hook = folder / "hook.py"
    hook.write_text(
        "import json, pathlib, random, sys\n"
        "if random.random() < 0.05: sys.exit(1)\n"
        f"with open({str(taken)!r}, 'a') as log:\n"
        "    log.write(json.loads(pathlib.Path(sys.argv[1]).read_text())['audit']['sha256'] + '\\n')\n"
    )
    (folder / "sitecustomize.py").write_text(_CLOCK)

    def use(number: int) -> Callable[[], None]:
        def act() -> None:
            (folder / "next").symlink_to(models[number])
            (folder / "next").rename(current)

        return act

    use(0)()
    contents = []
    for number in range(3):
        write_slide(folder / f"content{number}.tif", arguments.seed + number, tissue_px=300)
        contents.append((folder / f"content{number}.tif").read_bytes())

    def arrive(name: str, content: bytes) -> Callable[[], None]:
        def act() -> None:
            (inbox / f".{name}").write_bytes(content)
            (inbox / f".{name}").rename(inbox / f"{name}.tif")

        return act

    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH", ""))))
    service = Supervised(
        [
            sys.executable, "-m", "wsi_ncmi", "predict", str(inbox), "--model", str(current),
            "--out", str(out), "--watch", "--settle", "0.5", "--interval", "0.5", "--workers", "1",
            "--no-heatmaps", "--no-geojson", "--timeout-per-slide", str(arguments.timeout), "--quiet",
            "--on-answer", f"{sys.executable} {hook}", "--ood-threshold", "inf",
        ],
        {
            **os.environ, "PYTHONPATH": path, "CLOCK_JUMP": str(jump),
            "WSI_NCMI_HEARTBEAT": str(folder / "beat"),
        },
    )  # fmt: skip
    length = 60.0 * arguments.minutes
    ballast = out.parent / "ballast"
    events: list[tuple[float, str, Callable[[], None]]] = []
    bursts = [rng.uniform(0, 0.8) for _ in range(max(3, arguments.slides // 25))]
    for number in range(arguments.slides):
        moment = rng.choice(bursts) if rng.random() < 0.8 else rng.uniform(0, 0.85)
        events.append((moment, "", arrive(f"s{number:04d}", contents[number % 3])))
    events.append((0.10, "", arrive("broken", contents[0][:2000])))
    disturbances: list[tuple[float, str, str, Callable[[], None]]] = [
        (0.15, "kill", "SIGKILL", lambda: service.send(signal.SIGKILL)),
        (0.25, "hang", "a slide that will hang", arrive("hang", contents[1])),
        (0.35, "stop", "SIGTERM", lambda: service.send(signal.SIGTERM)),
        (0.45, "models", "the second model", use(1)),
        (0.55, "clock", "the clock is set back by a day", jump.touch),
        (0.65, "models", "the first model again", use(0)),
        (0.72, "kill", "SIGKILL", lambda: service.send(signal.SIGKILL)),
        (0.78, "disk", "a full disk", lambda: fill(out.parent)),
    ]
    kinds = set(arguments.kinds) - ({"disk"} if not mounted else set())
    events += [(moment, what, act) for moment, kind, what, act in disturbances if kind in kinds]
    events.sort(key=lambda event: event[0])
    started, hung, noted = time.monotonic(), False, 0.0
    if arguments.memory:
        arguments.memory.write_text("seconds,start,mib,answers\n")
    bad = {"broken", "hang"} if "hang" in kinds else {"broken"}
    expected = bad | {f"s{number:04d}" for number in range(arguments.slides)}
    quiet = 0
    try:
        while quiet < 10 and time.monotonic() - started < 4 * length + 600:
            passed = (time.monotonic() - started) / length
            # What disturbs a service waits until there is one.
            while events and events[0][0] <= passed and (service.ready or not events[0][1]):
                _, what, act = events.pop(0)
                if what:
                    print(f"{passed:4.0%}: {what}", flush=True)
                act()
            if ballast.exists() and time.time() - ballast.stat().st_mtime > _FULL_S:
                ballast.unlink()
            service.look()
            hung = halt_worker(out, "hang") or hung
            if arguments.memory and service.memory[-1] and time.monotonic() - noted >= _NOTE_S:
                noted = time.monotonic()
                row = round(noted - started), len(service.memory), service.memory[-1][-1]
                with arguments.memory.open("a") as file:
                    file.write(",".join(map(str, (*row, taken.read_bytes().count(b"\n")))) + "\n")
            time.sleep(0.2)
            waits = events or ballast.exists()
            quiet = quiet + 1 if not waits and is_idle(out, len(expected)) else 0
    finally:
        code = service.stop()
    faults = faults_of(out, taken, expected, len(bad))
    if code:
        faults.append(f"the service ended with {code} after SIGTERM")
    if "hang" in kinds and not hung:
        faults.append("no slide was made to hang")
    memory = max(service.memory, key=len)
    early, late = (int(np.median(part)) for part in np.array_split(np.array(memory[len(memory) // 4 :]), 2))
    if late > _GROWTH * early:
        faults.append(f"the memory grew from {early} to {late} MiB")
    values = metrics_of(out)
    report = {
        "slides": len(expected), "minutes": round((time.monotonic() - started) / 60, 1),
        "answers": {name: int(value) for name, value in values.items() if name.startswith("answers_total")},
        "entries": int(values["audit_log_entries_total"]), "exit_codes": dict(service.codes),
        "memory_mib": [early, late], "hook_calls": len(taken.read_text().split()), "faults": faults,
    }  # fmt: skip
    print({name: value for name, value in report.items() if name != "faults"})
    return report


def is_idle(out: Path, slides: int) -> bool:
    """Whether nothing waits, by the service's own metrics and memory."""
    try:
        seen = json.loads((out / "watch.json").read_text())["slides"]
        text = (out / "metrics.prom").read_text()
    except (OSError, ValueError, KeyError):
        return False
    waiting = re.search(r'(?m)^wsi_ncmi_slides\{state="waiting"\} 0$', text)
    pending = re.search(r"(?m)^wsi_ncmi_undelivered_answers 0$", text)
    return len(seen) >= slides and bool(waiting and pending)


if __name__ == "__main__":
    main()
