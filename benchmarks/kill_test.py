"""Kills an extraction job again and again, resumes it once, and proves that nothing shows.

    python benchmarks/kill_test.py [--kills 100] [--slides 30] [--encoder NAME] [--weights FILE] [--json]

The job runs two workers over its slides; its whole process group gets SIGKILL at random moments, again and
again, each time after it has begun to work. Then it runs once to its end. What must hold: every slide is done
and every file was published once; every file verifies; the bytes of all files equal those of an undisturbed
run; no temporary file and no claim is left. When all slides are done before the last kill, the job starts in
a fresh folder, and each folder is held to the same. Exit code 1 when anything does not hold.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile

from wsi_ncmi.encoders import EncoderConfig
from wsi_ncmi.extraction import run_slides
from wsi_ncmi.extraction.config import ExtractConfig
from wsi_ncmi.extraction.ledger import LedgerRow
from wsi_ncmi.extraction.task import SlideTask
from wsi_ncmi.features import verify_folder
from wsi_ncmi.slides import take_inventory
from wsi_ncmi.tiling import GridConfig

MEAN_S = 0.5
"""A kill comes so long, on average, after a job has begun to work."""


def write_slide(path: Path, seed: int, tissue_px: int = 512) -> None:
    """Glass with a square of textured tissue, 0.5 µm per pixel."""
    rng = np.random.default_rng(seed)
    pixels = np.full((tissue_px + 512, tissue_px + 512, 3), 243, np.uint8)
    noise = rng.normal(0, 18, (tissue_px, tissue_px, 3))
    coloured = np.clip(np.array([190, 110, 165]) + noise, 0, 255).astype(np.uint8)
    pixels[256 : 256 + tissue_px, 256 : 256 + tissue_px] = coloured
    with tifffile.TiffWriter(path) as writer:
        writer.write(
            pixels, tile=(256, 256), photometric="rgb", compression="deflate", resolution=(20_000, 20_000),
            resolutionunit="CENTIMETER", metadata=None,
        )  # fmt: skip


def job(slides: Path, out: Path, encoder: EncoderConfig, workers: int = 2) -> list[LedgerRow]:
    """The job that is killed."""
    grid = GridConfig(mpp=0.5, tile_px=128)
    tasks = [
        SlideTask(record, ExtractConfig(slides=slides, out=out, grid=grid))
        for record in take_inventory(slides)
    ]
    return run_slides(tasks, encoder, workers=workers)


def contents(out: Path) -> dict[str, bytes]:
    """Every file but the journal."""
    files = (path for path in out.rglob("*") if path.is_file() and path.name != "ledger.jsonl")
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def published(out: Path) -> dict[str, int]:
    """Feature files and their inodes: a file that was published again has another."""
    return {path.name: path.stat().st_ino for path in out.glob("features/*/*.h5")}


def begun(out: Path) -> bool:
    """Whether a worker holds a claim."""
    return any(True for _ in out.glob("features/*/.claims/[!.]*"))


def kill_once(command: list[str], out: Path, rng: random.Random) -> bool:
    """Starts the job and kills it; whether it was at work."""
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    stale = {path: path.stat().st_mtime for path in out.glob("features/*/.claims/[!.]*")}
    while process.poll() is None:
        fresh = out.glob("features/*/.claims/[!.]*")
        if any(path not in stale or _time(path) != stale[path] for path in fresh):
            time.sleep(min(rng.expovariate(1 / MEAN_S), 5 * MEAN_S))
            break
        time.sleep(0.01)
    alive = process.poll() is None
    if alive:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return alive


def _time(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def check(slides: Path, out: Path, encoder: EncoderConfig, expected: dict[str, bytes]) -> list[str]:
    """Resumes once; what does not hold, in words."""
    before = published(out)
    rows = job(slides, out, encoder)
    faults = [f"{row.slide_id}: {row.status} {row.reason}" for row in rows if row.status == "failed"]
    after = published(out)
    faults += [f"{name} was published twice" for name in before if after.get(name) != before[name]]
    faults += [verdict.problem for verdict in verify_folder(out) if not verdict.ok]
    found = contents(out)
    faults += [f"left over: {name}" for name in sorted(set(found) - set(expected))]
    faults += [f"missing: {name}" for name in sorted(set(expected) - set(found))]
    faults += [
        f"other bytes: {name}" for name in sorted(set(found) & set(expected)) if found[name] != expected[name]
    ]
    return faults


def main() -> None:
    """Runs the test."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--slides", type=int, default=30)
    parser.add_argument("--encoder", default="descriptor")
    parser.add_argument("--weights", type=Path, default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--job", nargs=2, type=Path, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    encoder = EncoderConfig(name=arguments.encoder, weights=arguments.weights, device="cpu", batch_size=8)
    if arguments.job is not None:
        job(*arguments.job, encoder)
        return
    rng = random.Random(arguments.seed)
    faults: list[str] = []
    kills = folders = 0
    with tempfile.TemporaryDirectory() as temporary:
        slides, undisturbed = Path(temporary) / "slides", Path(temporary) / "undisturbed"
        slides.mkdir()
        for number in range(arguments.slides):
            write_slide(slides / f"slide_{number:02d}.tif", number)
        job(slides, undisturbed, encoder)
        expected = contents(undisturbed)
        while kills < arguments.kills:
            folders += 1
            out = Path(temporary) / f"out_{folders}"
            command = [
                sys.executable,
                __file__,
                "--encoder",
                arguments.encoder,
                "--job",
                str(slides),
                str(out),
            ]
            if arguments.weights is not None:
                command += ["--weights", str(arguments.weights)]
            seen: dict[str, int] = {}
            here = 0
            while kills < arguments.kills and kill_once(command, out, rng):
                kills, here = kills + 1, here + 1
                now = published(out)
                faults += [f"{name} was published twice" for name in seen if now.get(name) != seen[name]]
                seen = now
            faults += check(slides, out, encoder, expected)
            print(
                f"{here} kills, {len(seen)} slides done before the last run, {len(faults)} faults", flush=True
            )
    for fault in faults[:20]:
        print(fault)
    if arguments.json:
        print(
            json.dumps(
                {"kills": kills, "folders": folders, "slides": arguments.slides, "faults": len(faults)}
            )
        )
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
