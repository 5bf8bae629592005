"""Kills whole commands at random moments, starts them again, and compares the end with an undisturbed run.

    python benchmarks/kill_commands.py [--kills 100] [--verbs extract train …] [--seed 0] [--json]

On a cohort of small slides each verb gets SIGKILL (its whole process group), each time after it has finished
a first file of its own, up to three times a folder; then it runs to its end. What must hold: exit code 0; the
same files as those of an undisturbed run, no other; equal bytes of features, weights, bags and
slides, equal tables but for times and what was there before. Exit code 1 when anything does not hold.
"""

import argparse
import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from kill_test import write_slide

VERBS = ("extract", "train", "predict", "export", "convert", "synth")
KILLS_A_FOLDER = 3
# Times, process numbers and paths stand in these; that they are there is compared.
_VARYING = {".json", ".jsonl", ".html", ".md", ".zip", ".yaml"}
_VARYING_COLUMNS = {"seconds", "status", "reason", "utc"}


def wsi_ncmi(*arguments: object) -> list[str]:
    """A command line of the program."""
    return [sys.executable, "-m", "wsi_ncmi", *map(str, arguments), "--quiet"]


def write_cohort(cohort: Path, slides: int = 24) -> None:
    """Small slides of two classes, a patient each."""
    (cohort / "slides").mkdir(parents=True)
    rows = ["slide_id,label"]
    for number in range(slides):
        write_slide(cohort / "slides" / f"slide_{number:02d}.tif", number, tissue_px=512)
        rows.append(f"slide_{number:02d},{'ab'[number % 2]}")
    (cohort / "labels.csv").write_text("\n".join(rows) + "\n")


def command_of(verb: str, work: Path, out: Path) -> list[str]:
    """The command line that is killed."""
    features = work / "features" / "features" / "descriptor"
    return {
        "extract": wsi_ncmi(
            "extract", work / "cohort" / "slides", "--out", out, "--tile-px", 128, "--workers", 2
        ),
        "train": wsi_ncmi(
            "train", "--features", features, "--labels", work / "cohort" / "labels.csv", "--out", out,
            "--group", "slide_id", "--folds", 2, "--seeds", 3, "--epochs", 30, "--workers", 1,
        ),
        "predict": wsi_ncmi(
            "predict", work / "cohort" / "slides", "--model", work / "model.zip", "--out", out,
            "--workers", 1, "--watch", "--settle", 0, "--interval", 0.1, "--until-idle", 0,
        ),
        "export": wsi_ncmi("export", work / "run", "--out", out / "model", "--features", features),
        "convert": wsi_ncmi("convert", features, "--to", "clam", "--out", out),
        "synth": wsi_ncmi("synth", out, "--slides", 5, "--workers", 1),
    }[verb]  # fmt: skip


def finished(out: Path) -> dict[Path, int]:
    """Files that are whole, with their inodes: those under a temporary name and notes of work are not."""
    return {
        path: path.stat().st_ino
        for path in out.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(out).parts)
        and not path.name.endswith((".partial", ".jsonl"))
    }  # fmt: skip


def content(path: Path) -> object:
    """What is compared of a file."""
    if path.suffix in _VARYING:
        return None
    if path.suffix == ".csv":
        with path.open(newline="") as handle:
            return [
                {k: v for k, v in row.items() if k not in _VARYING_COLUMNS} for row in csv.DictReader(handle)
            ]
    return path.read_bytes()


def contents(out: Path) -> dict[str, object]:
    """Every file of a folder, hidden and temporary ones too."""
    return {str(path.relative_to(out)): content(path) for path in sorted(out.rglob("*")) if path.is_file()}


def kill_once(command: list[str], out: Path, most_s: float, rng: random.Random) -> bool:
    """Starts the command and kills it after it has finished a file; False when it ended before."""
    before = finished(out)
    process = subprocess.Popen(
        command, start_new_session=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    while process.poll() is None and finished(out) == before:
        time.sleep(0.02)
    time.sleep(rng.uniform(0, most_s))
    alive = process.poll() is None
    if alive:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return alive


def undisturbed(command: list[str], out: Path) -> float:
    """Runs the command to its end; the seconds from its first finished file to there."""
    out.mkdir(parents=True)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None and not finished(out):
        time.sleep(0.02)
    started = time.monotonic()
    if process.wait():
        raise SystemExit(f"{command} ended with {process.returncode}.")
    return time.monotonic() - started


def faults_of(command: list[str], out: Path, expected: dict[str, object]) -> list[str]:
    """Runs to the end; what does not hold, in words."""
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode and not (command[3] == "export" and "exists already" in ended.stderr):
        return [f"exit code {ended.returncode}: {ended.stderr.strip()[-500:]}"]
    found = contents(out)
    return [
        *(f"left over: {name}" for name in sorted(set(found) - set(expected))),
        *(f"missing: {name}" for name in sorted(set(expected) - set(found))),
        *(f"other bytes: {n}" for n in sorted(set(found) & set(expected)) if found[n] != expected[n]),
    ]


def main() -> None:
    """Runs the kills."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--verbs", nargs="+", choices=VERBS, default=list(VERBS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    kills: Counter[str] = Counter()
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        cohort = work / "cohort"
        write_cohort(cohort)
        for command in (
            command_of("extract", work, work / "features"),
            command_of("train", work, work / "run"),
            wsi_ncmi("export", work / "run", "--out", work / "model.zip"),
        ):
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        for number, verb in enumerate(arguments.verbs):
            reference = work / verb / "undisturbed"
            most_s = undisturbed(command_of(verb, work, reference), reference)
            expected = contents(reference)
            due = arguments.kills * (number + 1) // len(arguments.verbs)
            folders = 0
            while kills.total() < due:
                folders += 1
                out = work / verb / f"out_{folders}"
                out.mkdir()
                command = command_of(verb, work, out)
                here = 0
                while here < KILLS_A_FOLDER and kills.total() < due and kill_once(command, out, most_s, rng):
                    here += 1
                    kills[verb] += 1
                faults += [f"{verb}: {fault}" for fault in faults_of(command, out, expected)]
            print(
                f"{verb}: {kills[verb]} kills in {folders} folders, {len(faults)} faults so far", flush=True
            )
    for fault in faults[:20]:
        print(fault)
    if arguments.json:
        print(json.dumps({"kills": kills, "faults": len(faults)}))
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
