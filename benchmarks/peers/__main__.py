"""Compares this project with other programs: ``python -m benchmarks.peers`` (``make bench-peers``).

Rounds of all programs, one after the other, in alternating order, this project among them; what was measured
is kept in ``WORK/samples.jsonl``, so a later call adds rounds or programs to the same table.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.peers import data, tables
from benchmarks.peers.catalogue import OURS, PEERS
from benchmarks.peers.environments import Environment, MissingPeerError, make
from benchmarks.peers.measure import PARTS, FailedRunError, Run, measure


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """What the command line says; the environment gives the defaults that ``make`` passes on."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__.split("\n")[0])
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), metavar="PART")
    parser.add_argument(
        "--peers", nargs="+", choices=list(PEERS), metavar="PEER",
        default=os.environ.get("PEERS", "").split() or list(PEERS),
        help="of " + ", ".join(PEERS),
    )  # fmt: skip
    parser.add_argument("--cases", nargs="+", metavar="CASE", help="only these cases of the parts")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("build/peers"), help="environments, data, results")
    parser.add_argument(
        "--git",
        default=os.environ.get("PEERS_GIT", ""),
        help="address or folder of the repositories OWNER/NAME",
    )
    parser.add_argument(
        "--prepare", action="store_true", help="make environments and data, and measure nothing"
    )
    found = parser.parse_args(given)
    if unknown := set(found.peers) - set(PEERS):
        parser.error(f"no such peer: {', '.join(sorted(unknown))}; there are {', '.join(PEERS)}")
    if found.rounds < 1:
        parser.error("--rounds is at least 1")
    return found


def main() -> None:
    """Makes what is missing, measures, and prints the table of everything measured so far."""
    given = arguments(sys.argv[1:])
    work = given.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    environments: dict[str, Environment] = {}
    for name in (*given.peers, OURS):  # OpenSlide, the first, gives the pixels to compare with
        try:
            environments[name] = make(name, work, given.git, sys.executable)
        except MissingPeerError as error:
            print(f"{name}: left out: {error}", file=sys.stderr)
    kept = work / "samples.jsonl"
    if given.prepare:
        for part in data.PARTS:
            data.drawn(part, work)
    else:
        begun = datetime.now(UTC).isoformat(timespec="seconds")
        for turn in range(given.rounds):
            play(given, environments, work, kept, f"{begun} {turn}", backwards=bool(turn % 2))
    samples = [json.loads(line) for line in kept.read_text("utf-8").splitlines()] if kept.exists() else []
    table = tables.markdown(samples)
    (work / "table.md").write_text(table + "\n", "utf-8")
    (work / "results.json").write_text(
        json.dumps({"machine": machine(), "samples": samples}, indent=1), "utf-8"
    )
    print(f"{json.dumps(machine())}\n\n{table}")


def play(
    given: argparse.Namespace,
    environments: dict[str, Environment],
    work: Path,
    kept: Path,
    turn: str,
    *,
    backwards: bool,
) -> None:
    """One round: every case by every program that has it."""
    for part_name in given.parts:
        part = PARTS[part_name]
        names = [name for name in environments if name == OURS or part_name in PEERS[name].parts]
        for case in part.cases:
            if given.cases and case not in given.cases:
                continue
            for name in reversed(names) if backwards else names:
                try:
                    figures = measure(part, Run(name, environments[name], work, case))
                except FailedRunError as error:
                    print(f"{part_name}, {case}, {name}: {error}", file=sys.stderr)
                    continue
                if figures is None:
                    continue
                sample: dict[str, Any] = {"part": part_name, "case": case, "peer": name, "round": turn}
                sample |= {"version": environments[name].version, "time": round(time.time()), **figures}
                with kept.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(sample) + "\n")
                print(json.dumps(sample), file=sys.stderr)


def machine() -> dict[str, object]:
    """Where this was measured."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.exists() else []
    model = next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
    return {
        "processor": model, "cores": len(os.sched_getaffinity(0)), "system": platform.platform(),
        "python": platform.python_version(), "load": round(os.getloadavg()[0], 2),
    }  # fmt: skip


if __name__ == "__main__":
    main()
