"""Slides with damage anywhere, many to a job of the program."""

import csv
import io
import math
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import openslide
import tifffile
from fuzz_kinds.bases import TILE_PX, Base, make_bases
from fuzz_kinds.harness import LIMIT_S, Regions, Result, is_unclear, mutate
from numpy.typing import NDArray
from PIL import Image

_BATCH = 90
_CONTAINED = ("ends the process", "was not opened within", "died", "took longer", "given up")
Input = tuple[Base, str, str, bytes]
"""Base, name, damage in words, content."""


def inputs(count: int, seed: int, work: Path, data: Path | None) -> Iterator[Result]:
    """Slides with damage anywhere."""
    yield from run_jobs(make_bases(work / "bases", data), count, f"{seed} slides", work, _anywhere)


def _anywhere(base: Base, rng: random.Random) -> Regions:
    return base.regions


def run_jobs(
    bases: Sequence[Base],
    count: int,
    seed: str,
    work: Path,
    regions: Callable[[Base, random.Random], Regions],
) -> Iterator[Result]:
    """Damaged slides of all bases, those with the same options together, some to a job."""
    inputs: dict[tuple[str, ...], list[Input]] = {}
    for number in range(count):
        base = bases[number % len(bases)]
        rng, sound = random.Random(f"{seed} {number}"), base.path.read_bytes()
        content, what = mutate(sound, regions(base, rng), rng)
        while content == sound:  # zeros over zeros
            content, what = mutate(sound, regions(base, rng), rng)
        inputs.setdefault(base.options, []).append((base, f"s{number:05}", f"{number} {what}", content))
    for options, group in inputs.items():
        for first in range(0, len(group), _BATCH):
            yield from _job(options, group[first : first + _BATCH], work / "job")


def _job(options: Sequence[str], inputs: Sequence[Input], work: Path) -> Iterator[Result]:
    """Extracts slides in one job with the sound ones, and judges each."""
    bases = {base.name: base for base, *_ in inputs}
    for base, name, _, content in [
        *inputs,
        *((base, name, "", base.path.read_bytes()) for name, base in bases.items()),
    ]:
        (work / "in" / name).mkdir(parents=True)  # files of a DICOM series share a folder
        (work / "in" / name / f"{name}{base.path.suffix}").write_bytes(content)
    code, told = extract(work, options, 60 + 3 * len(inputs))
    rows, listed = (read_rows(work / "out" / name, "path") for name in ("ledger.csv", "slides.csv"))
    bags = {name: _bag(work / "out", name) for name in bases}
    if code not in (0, 1) or None in bags.values():
        outcome = "hang" if code is None else "crash"
        yield Result("the job", options[-1], outcome, f"exit code {code}, {list(bags)}: {told}")
        return
    for base, name, what, content in inputs:
        path, sound = (f"{each}/{each}{base.path.suffix}" for each in (name, base.name))
        row, record = rows.get(path, []), listed.get(path, [])
        if len(row) != 1 or len(record) != 1:
            outcome = "lost", f"{len(row)} rows in the ledger, {len(record)} in the inventory"
        else:
            outcome = _outcome(base, work, name, row[0], record[0], listed[sound][0], bags[base.name])
        yield Result(base.name, what, *outcome, content)
    shutil.rmtree(work)


def _outcome(
    base: Base, work: Path, name: str, row: Mapping[str, str], record: Mapping[str, str],
    sound_record: Mapping[str, str], sound: tuple[NDArray[Any], NDArray[Any]],
) -> tuple[str, str]:  # fmt: skip
    reason = row["reason"]
    if reason and is_unclear(reason):
        return "unclear", reason
    if row["status"] == "failed":
        return ("contained" if any(word in reason for word in _CONTAINED) else "refused"), reason
    path = work / "in" / name / f"{name}{base.path.suffix}"
    bag = _bag(work / "out", name)
    if bag is None:
        return "lost", "done, without features"
    for key in ("mpp_x", "mpp_y", "width_px", "height_px"):
        if record[key] != sound_record[key]:
            told = _told(path).get(key)
            agrees = told is not None and math.isclose(float(record[key]), told, rel_tol=1e-4)
            against = "" if key.startswith("mpp") else objection(base, path, [])
            outcome = "other" if agrees and not against else "silent"
            return outcome, f"{key} is {record[key]}, the reference says {told}; {against}; {reason}"
    before, after = (
        dict(zip(map(tuple, coords.tolist()), features, strict=True)) for features, coords in (sound, bag)
    )
    changed = [
        place
        for place in before.keys() & after.keys()
        if not np.allclose(before[place], after[place], atol=0.02)
    ]
    unread = int(row["failed_reads"])
    if not changed and len(before) == len(after) + unread and not after.keys() - before.keys():
        return ("refused" if unread else "same"), reason
    if not changed and "can't be read" in reason:  # what can't be read counts as tissue
        return "refused", reason
    if against := objection(base, path, changed):
        return (
            "silent",
            f"{len(changed)} of {len(before)} tiles changed, {len(after)} kept; {against}; {reason}",
        )
    return "other", reason


def objection(base: Base, path: Path, changed: Sequence[tuple[int, int]]) -> str:
    """Why the reference does not bear out what was read, or nothing."""
    try:
        found = base.stored(path)
    except Exception as error:
        return f"the reference can't parse it ({error})"
    known = base.tiles | {place: tile for place, tile in found.items() if tile is not None}
    spans = {place: (TILE_PX, TILE_PX) if tile is None else tile.shape for place, tile in known.items()}
    side = TILE_PX + 1
    touched = [
        (level, x, y) for level, x, y in found
        if not changed or (level == 0 and any(
            x - side < left < x + spans.get((0, x, y), (0, TILE_PX))[1]
            and y - side < top < y + spans.get((0, x, y), (TILE_PX, 0))[0]
            for left, top in changed
        ))
    ]  # fmt: skip
    if refused := [place for place in touched if found[place] is None]:
        return f"the reference decoder refuses {len(refused)} tiles, as {refused[0]}"
    if found.keys() == base.tiles.keys() and all(
        np.array_equal(found[place], base.tiles[place]) for place in touched
    ):
        return "the reference reads what it read before"
    return ""


def _told(path: Path) -> dict[str, float]:
    """Size and resolution as OpenSlide, or else tifffile, tells them."""
    try:
        with openslide.OpenSlide(path) as slide:
            wide, high = slide.dimensions
            told = {
                f"mpp_{axis}": float(slide.properties.get(f"openslide.mpp-{axis}", "nan")) for axis in "xy"
            }
            return told | {"width_px": wide, "height_px": high}
    except openslide.OpenSlideError:
        pass
    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            unit = {2: 25400, 3: 10000}.get(int(page.resolutionunit), math.nan)
            return {
                "width_px": page.imagewidth, "height_px": page.imagelength,
                **{f"mpp_{axis}": unit / value for axis, value in zip("xy", page.resolution, strict=True)},
            }  # fmt: skip
    except Exception:
        with Image.open(path) as flat:
            return {"width_px": flat.width, "height_px": flat.height}


def _bag(out: Path, name: str) -> tuple[NDArray[Any], NDArray[Any]] | None:
    path = out / "features" / "descriptor" / f"{name}.h5"
    if not path.is_file():
        return None
    with h5py.File(path) as file:
        return file["features"][()].astype(np.float32), file["coords"][()]


def read_rows(path: Path, key: str) -> dict[str, list[dict[str, str]]]:
    """Rows of a CSV by one of its columns."""
    rows: dict[str, list[dict[str, str]]] = {}
    if path.is_file():
        for row in csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline="")):
            rows.setdefault(row[key], []).append(row)
    return rows


def extract(work: Path, options: Sequence[str], limit_s: float) -> tuple[int | None, str]:
    """Extracts ``work/in``; the exit code, None without an end in time, and the end of what was told."""
    command = [
        sys.executable, "-m", "wsi_ncmi", "extract", str(work / "in"), "--out", str(work / "out"), *options,
        "--workers", "1", "--timeout-per-slide", str(LIMIT_S), "--quiet",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        errors="replace",
    )  # fmt: skip
    try:
        _, told = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return None, process.communicate()[1][-500:]
    return (-1 if "Traceback" in told else process.returncode), told[-500:]
