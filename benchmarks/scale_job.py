"""Time and memory of listing a very large folder, and of a second start of a finished job on it.

    python benchmarks/scale_job.py FOLDER prepare [--slides 100000]
    python benchmarks/scale_job.py FOLDER inventory
    python benchmarks/scale_job.py FOLDER finish
    python benchmarks/scale_job.py FOLDER resume

Slides and features are hard links to those of twelve real small slides, so that 100,000 of them take no
space but their names (four a slide). ``inventory`` lists them, ``finish`` makes them a finished job, and
``resume`` starts that job again. Each prints one JSON object: slides, seconds, CPU seconds of all processes,
the largest resident memory of this process and of one of its children (MiB). FOLDER is not removed.
"""

import argparse
import json
import os
import resource
import time
from dataclasses import replace
from pathlib import Path

from tile_reading import write_slide

from wsi_ncmi import extract
from wsi_ncmi.encoders import EncoderConfig, load_encoder
from wsi_ncmi.extraction.config import ExtractConfig
from wsi_ncmi.extraction.finished import FinishedSlides
from wsi_ncmi.extraction.ledger import Journal, read_ledger, write_ledger
from wsi_ncmi.extraction.planning import grids_of, make_tasks
from wsi_ncmi.slides import read_slides_csv, take_inventory, write_slides_csv

_KINDS = 12  # ext4 bears 65,000 links to a file
_SIDE_PX = 1024


def prepare(folder: Path, slides: int) -> None:
    """Makes the slides."""
    few = folder / "few"
    few.mkdir(parents=True)
    write_slide(few / "k00.svs", _SIDE_PX)
    content = bytearray((few / "k00.svs").read_bytes())
    for kind in range(1, _KINDS):
        content[1000] = kind  # inside the first stored tile
        (few / f"k{kind:02d}.svs").write_bytes(content)
    for number in range(slides):
        place = folder / "slides" / f"centre_{number % 5}" / f"case_{number // 50:05d}"
        place.mkdir(parents=True, exist_ok=True)
        os.link(few / f"k{number % _KINDS:02d}.svs", place / f"slide_{number:06d}.svs")


def inventory(folder: Path) -> int:
    """Lists them."""
    records = take_inventory(folder / "slides")
    out = folder / "out"
    out.mkdir(exist_ok=True)
    write_slides_csv(records, out / "slides.csv")
    return len(records)


def finish(folder: Path) -> int:
    """Makes a finished job of them."""
    model, out = folder / "made", folder / "out"
    extract(str(folder / "few"), str(model))
    rows = {row.slide_id: row for row in read_ledger(model / "ledger.csv")}
    config = ExtractConfig(slides=folder / "slides", out=out)
    config = replace(config, grid=grids_of(config)[""])
    tasks = make_tasks(config, read_slides_csv(out / "slides.csv"), None)
    finished = FinishedSlides(tasks, load_encoder(EncoderConfig()).info)
    made = []
    for task in tasks:
        record = task.record
        kind = f"k{int(record.slide_id[-6:]) % _KINDS:02d}"
        for file in task.products("descriptor"):
            file.parent.mkdir(parents=True, exist_ok=True)
            os.link(model / file.relative_to(out).with_name(kind + file.suffix), file)
        made.append(replace(rows[kind], slide_id=record.slide_id, path=record.path))
    for row in made:  # a link changes the state of its file
        finished.add(row)
    write_ledger(made, out / "ledger.csv")
    with Journal(out / "ledger.jsonl") as journal:
        journal.append(made[0])
    return len(made)


def resume(folder: Path) -> int:
    """Starts the job again."""
    result = extract(str(folder / "slides"), str(folder / "out"))
    print(result.notes[0])
    return len(read_ledger(folder / "out" / "ledger.csv"))


def main() -> None:
    """Runs one step."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("step", choices=("prepare", "inventory", "finish", "resume"))
    parser.add_argument("--slides", type=int, default=100_000)
    arguments = parser.parse_args()
    if arguments.step == "prepare":
        prepare(arguments.folder, arguments.slides)
        return
    started, before = time.perf_counter(), os.times()
    step = {"inventory": inventory, "finish": finish, "resume": resume}[arguments.step]
    count, after = step(arguments.folder), os.times()
    own, children = (
        resource.getrusage(who).ru_maxrss >> 10 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(
        json.dumps(
            {
                "step": arguments.step, "slides": count, "seconds": round(time.perf_counter() - started, 1),
                "cpu_s": round(sum(after[:4]) - sum(before[:4]), 1), "rss_mib": own,
                "child_rss_mib": children,
            }
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
