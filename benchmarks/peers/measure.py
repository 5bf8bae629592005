"""Runs one program once, and turns what it used into the figure of its part."""

import json
import resource
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import data
from benchmarks.peers.catalogue import HERE, OURS, PEERS
from benchmarks.peers.environments import Environment, variables

LIMIT_S = 300
EPOCHS = (1, 5)
"""A pair of runs of training, which differ by epochs alone."""

READING = {
    # case: slide, edge at the level that is read, level, its factor, edge wanted, threads
    "aligned": ("quarters.svs", 256, 0, 1, 256, 1),
    "unaligned": ("quarters.svs", 224, 0, 1, 224, 1),
    "half, no level": ("quarters.svs", 512, 0, 1, 256, 1),
    "half, stored level": ("halves.tif", 256, 1, 2, 256, 1),
    "JPEG 2000": ("jpeg2000.svs", 256, 0, 1, 256, 1),
    "aligned, two threads": ("quarters.svs", 256, 0, 1, 256, 2),
}
TISSUE = ("mask and grid", "with artefacts, thumbnail")
Figures = dict[str, float]


class FailedRunError(Exception):
    """A program ended with an error; its last words."""


@dataclass(frozen=True)
class Run:
    """One run of one program.

    Attributes:
        name: The program.
        environment: How it is called.
        work: Folder of everything that the comparison leaves.
        case: Case of the part.
    """

    name: str
    environment: Environment
    work: Path
    case: str

    @property
    def out(self) -> Path:
        """Where the program may write; empty at the start."""
        return self.work / "out" / self.name


@dataclass(frozen=True)
class Part:
    """A part of the comparison.

    Attributes:
        title: Its heading.
        unit: What the figures are.
        cases: Its cases, a column each.
        figures: Measures a run; None where the program has no such case.
        more: More is better.
    """

    title: str
    unit: str
    cases: tuple[str, ...]
    figures: Callable[[Run], Figures | None]
    more: bool = False


def measure(part: Part, run: Run) -> Figures | None:
    """The figure of a run (``value``) and what goes with it.

    Raises:
        FailedRunError: The program failed.
    """
    shutil.rmtree(run.out, ignore_errors=True)
    run.out.mkdir(parents=True)
    try:
        return part.figures(run)
    finally:
        shutil.rmtree(run.out, ignore_errors=True)


def _reading(run: Run) -> Figures | None:
    slide, size, level, factor, tile, threads = READING[run.case]
    if run.name == "slideio" and not slide.endswith(".svs"):
        return None  # through GDAL, its driver for other TIFFs, minutes pass without an end
    folder = data.drawn("reading", run.work)
    edge = size * factor
    columns = (data.JPEG2000_SIDE_PX if slide.startswith("jpeg2000") else data.SIDE_PX) // edge
    rows = min(columns, 8)
    first = (columns - rows) // 2
    pixels = run.work / "pixels" / f"{run.name} {run.case}.npy"
    pixels.parent.mkdir(exist_ok=True)
    job = {
        "slide": str(folder / slide), "size": size, "level": level, "factor": factor, "tile": tile,
        "threads": threads, "mpp": 0.25, "pixels": str(pixels) if threads == 1 else "",
        "xy": [[x * edge, y * edge] for y in range(first, first + rows) for x in range(columns)],
    }  # fmt: skip
    result = scripted("reading", run, job)
    figures = {"value": result["tiles"] / result["cpu"], "wall": result["tiles"] / result["wall"]}
    reference = pixels.with_name(f"openslide {run.case}.npy")
    if threads == 1 and reference.exists():
        difference = np.abs(np.load(pixels).astype(np.int16) - np.load(reference))
        figures |= {"max_difference": float(difference.max()), "mean_difference": float(difference.mean())}
    return figures


def _extraction(run: Run) -> Figures:
    slides = data.drawn("tissue", run.work)
    weights = data.drawn("extraction", run.work) / f"{run.case}.pth"
    job = {"network": run.case, "weights": str(weights), "batch": 32}
    tiny, one = (
        scripted("extraction", run, job | {"out": str(run.out / place), "slides": str(slides / place)})
        for place in ("tiny", "one")
    )
    count = one["tiles"] - tiny["tiles"]
    if count <= 0:
        raise FailedRunError(f"it made {one['tiles']} tiles of a slide and {tiny['tiles']} of a tiny one")
    tile = (one["tree_cpu"] - tiny["tree_cpu"]) / count
    return {
        "value": 1e3 * tile,
        "tiles": one["tiles"],
        "fixed": tiny["tree_cpu"] - tiny["tiles"] * tile,
    }


def _tissue(run: Run) -> Figures | None:
    prepared = run.case != TISSUE[0]
    if prepared and run.name != OURS:
        return None
    folder = data.drawn("tissue", run.work)
    boxes = run.out / "boxes.json"
    job = {"slides": str(folder / "slides"), "boxes": str(boxes), "prepared": prepared}
    result = scripted("tissue", run, job)
    found = json.loads(boxes.read_text("utf-8"))
    return {
        "value": result["cpu"],
        "wall": result["wall"],
        "tiles": result["tiles"],
        "dice": data.dice(found, folder),
    }


def _training(run: Run) -> Figures | None:
    batch = int(run.case.removeprefix("batch "))
    if run.name == "clam" and batch > 1:
        return None
    job = {"data": str(data.drawn("training", run.work)), "dim": data.DIM, "batch": batch}
    few, many = (scripted("training", run, job | {"out": str(run.out / str(n)), "epochs": n}) for n in EPOCHS)
    epoch = (many["tree_cpu"] - few["tree_cpu"]) / (EPOCHS[1] - EPOCHS[0])
    return {"value": epoch, "fixed": few["tree_cpu"] - EPOCHS[0] * epoch}


def _start(run: Run) -> Figures:
    name = "wsi-ncmi" if run.name == OURS else PEERS[run.name].command
    command = [str(Path(run.environment.python).with_name(name)), "--help"]
    called(command, run)  # compiles
    result = called(command, run)
    return {"value": result["cpu"], "wall": result["wall"]}


def _opening(run: Run) -> Figures:
    slide = data.drawn("reading", run.work) / "quarters.svs"
    job = {"slide": str(slide), "size": 256, "level": 0, "factor": 1, "tile": 256, "threads": 1, "mpp": 0.25}
    result = scripted("reading", run, job | {"xy": [[0, 0]]})
    return {"value": 1e3 * result["open_cpu"]}


PARTS = {
    "reading": Part(
        "Reading tiles of 256 px (unaligned: 224)", "tiles a CPU second", tuple(READING), _reading, more=True
    ),
    "extraction": Part("Whole extraction, 224 px at 0.5 µm", "CPU ms a tile", data.NETWORKS, _extraction),
    "tissue": Part("Tissue and grid of 20 drawn slides", "CPU s (Dice)", TISSUE, _tissue),
    "training": Part("Training of gated ABMIL", "CPU s an epoch", ("batch 1", "batch 16"), _training),
    "start": Part("Start of `--help`", "CPU s", ("--help",), _start),
    "opening": Part("Opening a slide", "CPU ms", ("opening",), _opening),
}
"""Every part, by the name that ``--parts`` takes."""


def scripted(script: str, run: Run, job: dict[str, Any]) -> dict[str, float]:
    """Runs a script by the program's interpreter: what it says, and ``tree_cpu`` from start to end."""
    words = [str(HERE / "scripts" / f"{script}.py"), run.name, json.dumps({"out": str(run.out), **job})]
    used = called(words, run)
    return {"tree_cpu": used["cpu"], **json.loads(used["last"])}


def called(arguments: list[str], run: Run) -> dict[str, Any]:
    """Runs the program: processor and wall seconds of its process tree, and the last line.

    Raises:
        FailedRunError: It failed, or took longer than ``LIMIT_S``.
    """
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    try:
        done = subprocess.run(
            [run.environment.python, *arguments], cwd=run.environment.folder, capture_output=True, text=True,
            env=variables(run.environment), timeout=LIMIT_S, check=False, errors="replace",
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise FailedRunError(f"it took longer than {LIMIT_S} s") from error
    wall, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()
        raise FailedRunError(lines[-1])
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu": cpu, "wall": wall, "last": (done.stdout.strip().splitlines() or [""])[-1]}
