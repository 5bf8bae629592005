"""Hundreds of slides arrive in a watched folder at once, with one of each bad kind among them.

    python benchmarks/watched_folder.py --model BUNDLE [--slides 300] [--seed 0] [--json]

The watch runs twice until nothing new comes; between the runs a second slide of a name that is there already
arrives, one is replaced, and one is moved away. What must hold: the watch ends by itself, every sound slide
is predicted once and under one id, every bad file has a row with its reason (or is left out with a remark),
and nothing that was predicted disappears. Exit code 1 when anything does not hold.
"""

import argparse
import csv
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kill_test import write_slide


def plant_bad_files(inbox: Path, sound: Path) -> list[bytes]:
    """Writes one of each bad kind; their names."""
    root = os.fsencode(inbox)
    whole = sound.read_bytes()
    names = {
        b"text.svs": b"no slide",
        b"empty.svs": b"",
        b"cut.tif": whole[: len(whole) // 2],
        b"back\\slash.tif": whole,
        b"carriage\rreturn.tif": whole,
        b"escape\x1b[31m.tif": whole,
        b"bytes\xff\xfe.tif": whole,
        b"n" * 240 + b".tif": whole,
        b"bomb.tif": _bomb(),
    }
    for name, content in names.items():
        Path(os.fsdecode(root + b"/" + name)).write_bytes(content)
    os.mkfifo(inbox / "pipe.svs")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(inbox / "socket.svs"))
    (inbox / "nowhere.svs").symlink_to("gone.svs")
    (inbox / "itself.svs").symlink_to("itself.svs")
    return [*names, b"pipe.svs", b"socket.svs", b"nowhere.svs", b"itself.svs"]


def _bomb(directories: int = 20_000) -> bytes:
    """TIFF directories that all point at one table of tile offsets."""
    table = 8
    entries = 4000
    first = table + 4 * entries
    parts = [struct.pack("<2sHI", b"II", 42, first), b"\0" * (4 * entries)]
    size = 2 + 12 * 6 + 4
    for number in range(directories):
        following = first + (number + 1) * size if number < directories - 1 else 0
        tags = [
            (256, 4, 1, 1 << 20), (257, 4, 1, 1 << 20), (322, 4, 1, 256), (323, 4, 1, 256),
            (324, 4, entries, table), (325, 4, entries, table),
        ]  # fmt: skip
        parts.append(struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags))
        parts.append(struct.pack("<I", following))
    return b"".join(parts)


def watch(inbox: Path, model: Path, out: Path) -> tuple[int, dict[str, dict[str, str]], float]:
    """Exit code, ``predictions.csv`` by slide, and seconds."""
    started = time.monotonic()
    command = [
        sys.executable, "-m", "wsi_ncmi", "predict", str(inbox), "--model", str(model), "--out", str(out),
        "--watch", "--settle", "0", "--interval", "0.5", "--until-idle", "1", "--no-heatmaps", "--no-geojson",
        "--timeout-per-slide", "60", "--quiet",
    ]  # fmt: skip
    code = subprocess.run(command, timeout=1800).returncode
    with (out / "predictions.csv").open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    table = {row["slide_id"]: row for row in rows}
    if len(table) < len(rows):
        raise SystemExit("A slide has two rows.")
    return code, table, time.monotonic() - started


def main() -> None:
    """Runs the watch."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="bundle of the encoder 'descriptor'")
    parser.add_argument("--slides", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        inbox, out = Path(temporary) / "inbox", Path(temporary) / "out"
        (inbox / "later").mkdir(parents=True)
        ids = [f"s{number:03d}" for number in range(arguments.slides)]
        for number, slide_id in enumerate(ids):
            write_slide(inbox / f"{slide_id}.tif", arguments.seed + number, tissue_px=300)
        bad = plant_bad_files(inbox, inbox / f"{ids[0]}.tif")
        code, first, seconds = watch(inbox, arguments.model, out)
        if code != 1:
            faults.append(f"the first watch ended with {code}, not 1")
        faults += [
            f"{slide_id}: no prediction" for slide_id in ids if not first.get(slide_id, {}).get("prediction")
        ]
        write_slide(inbox / "later" / f"{ids[1]}.tif", 10_001, tissue_px=300)
        write_slide(inbox / f"{ids[2]}.tif", 10_002, tissue_px=320)
        (inbox / f"{ids[3]}.tif").unlink()
        code, second, again = watch(inbox, arguments.model, out)
        faults += [f"{slide_id}: its row is gone" for slide_id in first if slide_id not in second]
        same = [slide_id for slide_id in first if slide_id != ids[2]]
        faults += [
            f"{slide_id}: its row changed" for slide_id in same if second.get(slide_id) != first[slide_id]
        ]
        if second.get(ids[2]) == first.get(ids[2]):
            faults.append("the replaced slide was not predicted anew")
        if len(second) != len(first) + 1:
            faults.append(f"{len(second) - len(first)} new rows in place of 1")
        reasons = {slide_id: row["reason"] for slide_id, row in second.items() if not row["prediction"]}
        for slide_id, reason in sorted(reasons.items()):
            print(f"{slide_id!a:.60}: {reason}")
        print(
            f"{len(bad)} bad files, {len(reasons)} rows without prediction; "
            f"{seconds:.0f} s, then {again:.0f} s"
        )
    for fault in faults[:20]:
        print(fault)
    if arguments.json:
        print(json.dumps({"slides": len(ids), "bad": len(bad), "rows": len(reasons), "faults": len(faults)}))
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
