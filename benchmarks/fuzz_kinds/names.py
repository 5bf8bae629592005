"""Odd names of slides, which the program extracts, of ids and of classes."""

import os
import random
import unicodedata
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from fuzz_kinds.bases import make_bases
from fuzz_kinds.harness import Item, Result, judge_all
from fuzz_kinds.slides import extract, read_rows
from fuzz_kinds.tables import ODD_TEXTS, read_label_rows, rows_of, written

from wsi_ncmi.core.files import distinct_file_names


def inputs(count: int, seed: int, work: Path, data: Path | None) -> Iterator[Result]:
    """Odd names of slides (inventory and extraction by the program), of ids and of classes."""
    rng = random.Random(f"{seed} names")
    base = make_bases(work / "bases", data)[2]
    sound = base.path.read_bytes()
    files: dict[bytes, str] = {}
    texts = [
        text for text in ODD_TEXTS if len(text.encode()) < 250 and "/" not in text and text not in (".", "..")
    ]
    while len(files) < count // 2:
        text = "".join(rng.choices(texts, k=rng.choice((1, 1, 2))))
        raw = bytearray(os.fsencode(text))
        if rng.random() < 0.15:
            raw.insert(rng.randrange(len(raw) + 1), rng.randrange(128, 256))
        ending = rng.choice((".tif", ".tif", ".TIFF", ".svs", ".tif.tif", " .tif"))
        if b"/" not in raw and len(raw) < 240:
            files[bytes(raw) + ending.encode()] = f"{bytes(raw)!a:.40}{ending}"
    folder = os.fsencode(work / "in")
    (work / "in").mkdir()
    for name in (b"sound.tif", *files):
        Path(os.fsdecode(folder + b"/" + name)).write_bytes(sound)
    code, told = extract(work, base.options, 60 + 3 * len(files))
    there = len(list((work / "in").iterdir()))
    rows = read_rows(work / "out" / "ledger.csv", "path")
    flat = [row for group in rows.values() for row in group]
    ids = {row["slide_id"] for row in flat}
    if code not in (0, 1) or rows.get("sound.tif", [{}])[0].get("status") != "done":
        yield Result("files", "the job", "hang" if code is None else "crash", f"exit code {code}: {told}")
    if len(flat) != there or len(rows) != there or len(ids) != there:
        detail = f"{there} files, {len(flat)} rows, {len(rows)} paths, {len(ids)} ids"
        yield Result("files", "the table", "lost", detail)
    for name, what in files.items():
        row = rows.get(os.fsdecode(name), [None])[0]
        if row is None:  # shown with escapes, which no file name needs twice
            yield Result("files", what, "refused", "its name")
        elif row["status"] == "failed":
            yield Result("files", what, "refused", row["reason"])
        else:
            yield Result("files", what, "same", row["reason"])
    yield from _named_cells(count - len(files), rng, work)


def _named_cells(count: int, rng: random.Random, work: Path) -> Iterator[Result]:
    items: list[Item] = []
    folder = work / "empty"
    folder.mkdir()
    for number in range(count):
        column = ("slide_id", "case_id", "label")[number % 3]
        rows = rows_of("labels")
        text = rng.choice(ODD_TEXTS) + rng.choice(("", "", rng.choice(ODD_TEXTS)))
        at = rows[0].index(column)
        for row in rows[1:4:2]:
            row[at] = text if column == "label" else f"{text}{row[0]}"
        judge = partial(_judge_names, at, rows[1][at])
        items.append((column, f"{number} {text!a:.40}", written(rows).encode(), "table.csv", judge))
    yield from judge_all(items, folder, work)


def _judge_names(column: int, text: str, path: Path) -> tuple[str, str]:
    rows = read_label_rows(path)
    found = rows[0][column]  # type: ignore[index]
    files = distinct_file_names({row[2] for row in rows} | {row[0] for row in rows})  # type: ignore[attr-defined]
    if len(set(map(str.casefold, files.values()))) != len(files):
        return "silent", "two names share a file"
    if any("/" in name or len(name.encode()) > 200 or name in (".", "..") for name in files.values()):
        return "silent", "a name leads elsewhere"
    plain = unicodedata.normalize("NFC", text)
    return ("same", "") if found and found in plain else ("silent", f"{found!r} of {text!r}")
