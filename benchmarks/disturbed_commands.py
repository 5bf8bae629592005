"""Fills the disk, makes it read-only, or turns the clock under running commands; what is resumed is compared.

    python benchmarks/disturbed_commands.py [--verbs extract train predict] [--json]

Each command writes to a small file system of its own (mounting must be permitted). Once it has finished a
first file, the disk is filled, or remounted read-only, or the program's clock jumps by a year, forwards or
backwards (``time.time`` of its processes; the system's clock, and with it the times of files, stays). On a
full or read-only disk the command must end with an exit code and one sentence; started again with the disk
mended, it must come to what an undisturbed run gives: no file more or less, equal bytes but for times (as
in ``kill_commands.py``). Under another clock it must do so at once, and again when it is started once more.
Exit code 1 when anything does not hold.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kill_commands import command_of, contents, faults_of, finished, undisturbed, write_cohort

VERBS = ("extract", "train", "predict")
DISTURBANCES = ("full disk", "read-only disk", "clock a year on", "clock a year back")
_YEAR_S = 365 * 86400
_DISK = "256m"  # a prediction of the cohort takes 84 MB
# Read by each Python process of the command: the clock jumps when a file appears.
_CLOCK = """
import os, time
_real, _jump, _by = time.time, os.environ["CLOCK_JUMP"], float(os.environ["CLOCK_BY"])
time.time = lambda: _real() + (_by if os.path.exists(_jump) else 0.0)
"""


def mount(*arguments: object) -> None:
    """Mounts, and tries again while a file is being written."""
    for _ in range(200):
        if not subprocess.run(["mount", *map(str, arguments)], capture_output=True).returncode:
            return
        time.sleep(0.01)
    raise SystemExit(f"mount {' '.join(map(str, arguments))} is not permitted here.")


def fill(disk: Path) -> None:
    """Takes all room that a file system has."""
    with (disk / "ballast").open("wb") as ballast:
        try:
            while True:
                os.write(ballast.fileno(), bytes(1 << 16))
        except OSError:
            pass


def disturb(kind: str, disk: Path, jump: Path) -> None:
    """Does what the disturbance says, once."""
    if kind == "full disk":
        fill(disk)
    elif kind == "read-only disk":
        mount("-o", "remount,ro", disk)
    else:
        jump.touch()


def faults_under(kind: str, command: list[str], disk: Path, expected: dict[str, object]) -> list[str]:
    """Runs a command under a disturbance and again without; what does not hold, in words."""
    out, jump = disk / "out", disk.parent / f"{disk.name}.jump"
    site = disk.parent / "clock"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(_CLOCK)
    path = os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH", ""))))
    by = -_YEAR_S if kind.endswith("back") else _YEAR_S
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": path, "CLOCK_JUMP": str(jump), "CLOCK_BY": str(by)},
    )  # fmt: skip
    while process.poll() is None and not finished(out):
        time.sleep(0.02)
    time.sleep(random.Random(kind).uniform(0, 0.3))
    if process.poll() is not None:
        return ["ended before it could be disturbed"]
    disturb(kind, disk, jump)
    told = process.communicate()[1].strip()
    faults = []
    if "clock" in kind:
        if process.returncode:
            faults.append(f"exit code {process.returncode}: {told[-300:]}")
    elif not process.returncode:
        faults.append("exit code 0")
    if "Traceback" in told or "Internal error" in told:
        faults.append(f"no sentence for the user: {told[-300:]}")
    print(f"    told: {told.splitlines()[-1] if told else ''}")
    if kind == "full disk":
        (disk / "ballast").unlink()
    elif kind == "read-only disk":
        mount("-o", "remount,rw", disk)
    return faults + faults_of(command, out, expected)


def main() -> None:
    """Runs the disturbances."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--verbs", nargs="+", choices=VERBS, default=list(VERBS))
    parser.add_argument("--kinds", nargs="+", choices=DISTURBANCES, default=list(DISTURBANCES))
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    faults: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        write_cohort(work / "cohort")
        setup = [command_of("extract", work, work / "features"), command_of("train", work, work / "run")]
        export = command_of("export", work, work)
        setup.append([*export[: export.index("--out") + 1], str(work / "model.zip")])
        for command in setup:
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        for verb in arguments.verbs:
            reference = work / verb / "undisturbed"
            undisturbed(command_of(verb, work, reference), reference)
            expected = contents(reference)
            for number, kind in enumerate(arguments.kinds):
                disk = work / verb / f"disk_{number}"
                disk.mkdir()
                mount("-t", "tmpfs", "-o", f"size={_DISK}", "tmpfs", disk)
                try:
                    (disk / "out").mkdir()
                    command = command_of(verb, work, disk / "out")
                    faults[f"{verb}, {kind}"] = found = faults_under(kind, command, disk, expected)
                finally:
                    subprocess.run(["umount", "-l", disk], check=True)
                print(f"{verb}, {kind}: {len(found)} faults", *found[:5], sep="\n    ", flush=True)
    if arguments.json:
        print(json.dumps({each: len(found) for each, found in faults.items()}))
    sys.exit(1 if any(faults.values()) else 0)


if __name__ == "__main__":
    main()
