"""How long a round of a watched folder takes once thousands of slides were answered.

    python benchmarks/long_watch.py [--answered 0 2000] [--rounds 6] [--profile] [--json]

One drawn slide is answered by `predict --watch`; what that left (rows, thumbnail, audit trail, memory) is
planted again under other names; then rounds of 16 slides arrive. The seconds of each are measured, and the
memory after it.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from kill_test import write_slide
from service_week import write_models

from wsi_ncmi.extraction.config import ExecutionConfig
from wsi_ncmi.prediction.config import PredictConfig, WatchConfig
from wsi_ncmi.service.audit_log import AuditLog
from wsi_ncmi.workflows import watch as watching

_ROUND = 16


def repeat(table: Path, names: list[str]) -> None:
    """Repeats the only row of a table for further slides."""
    with table.open(newline="") as handle:
        rows = list(csv.reader(handle))
    head, row = rows[0], rows[1]
    with table.open("w", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerows([head, row, *([cell.replace("seed", name) for cell in row] for name in names)])


def plant(inbox: Path, out: Path, names: list[str]) -> None:
    """Makes an output folder with one answer into one with many."""
    for name in names:
        shutil.copy2(inbox / "seed.tif", inbox / f"{name}.tif")
        for path in out.glob("thumbnails/seed*"):
            shutil.copy2(path, path.with_name(path.name.replace("seed", name)))
    repeat(out / "ledger.csv", names)
    repeat(out / "slides.csv", names)
    state = json.loads((out / "watch.json").read_text())
    seed = state["slides"]["seed.tif"]
    state["slides"] |= {f"{name}.tif": {**seed, "slide_id": name} for name in names}
    (out / "watch.json").write_text(json.dumps(state))
    entries: list[dict[str, Any]] = []
    with AuditLog(out / "audit-log", lambda entry: entries.append(dict(entry))) as log:
        (entry,) = (each for each in entries if each["event"] == "answer")
        content = {
            key: entry[key] for key in ("slide_id", "fingerprint", "model", "configuration_sha256", "answer")
        }
        for name in names:
            log.append("answer", **{**content, "slide_id": name})


def measure(answered: int, rounds: int, profile: bool) -> dict[str, Any]:
    """Seconds of each round, and of the looks at the folder."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = write_models(folder)[0]
        inbox, out = folder / "inbox", folder / "out"
        inbox.mkdir()
        write_slide(inbox / "seed.tif", 0, tissue_px=300)
        watching._TIMEOUT_S = None  # in this process
        config = PredictConfig(
            slides=inbox, model=model, out=out, heatmaps=False, geojson=False,
            extraction=ExecutionConfig(workers=1),
            watch=WatchConfig(settle_s=0, until_idle_s=0, interval_s=0.1),
        )  # fmt: skip
        watching.watch(config)
        plant(inbox, out, [f"old{number:05d}" for number in range(answered)])
        times, memory = [], []
        original = watching._Watch._round

        def timed(self: Any, slides: Any, service: Any) -> None:
            started = time.perf_counter()
            original(self, slides, service)
            times.append(round(time.perf_counter() - started, 2))
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            memory.append(pages * os.sysconf("SC_PAGE_SIZE") >> 20)

        for number in range(rounds * _ROUND):
            shutil.copy(inbox / "seed.tif", inbox / f"new{number:04d}.tif")
        watching._Watch._round = timed  # type: ignore[method-assign]
        started = time.perf_counter()
        try:
            if profile:
                import cProfile

                cProfile.runctx("watching.watch(config)", globals(), locals(), sort="cumulative")
            else:
                watching.watch(config)
        finally:
            watching._Watch._round = original  # type: ignore[method-assign]
        seconds = round(time.perf_counter() - started, 1)
        return {"answered": answered, "rounds_s": times, "all_s": seconds, "memory_mib": memory}


def main() -> None:
    """Measures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--answered", type=int, nargs="+", default=[0, 2000])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    found = [measure(answered, arguments.rounds, arguments.profile) for answered in arguments.answered]
    for each in found:
        print(each)
    if arguments.json:
        json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
