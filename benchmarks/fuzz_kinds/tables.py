"""Tables in other styles, and tables with one thing wrong."""

import csv
import io
import random
import unicodedata
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from fuzz_kinds.harness import Item, Result, judge_all

from wsi_ncmi.cohorts import read_any_splits, read_labels
from wsi_ncmi.extraction.known_failures import read_known_failures
from wsi_ncmi.extraction.ledger import read_ledger
from wsi_ncmi.metrics import read_predictions
from wsi_ncmi.slides import read_mpp_table, read_slides_csv

_N = 12
# Texts that a cell may hold and that must come back, be refused, or mean "no value".
ODD_TEXTS = (
    "a,b", "a;b", 'say "x"', "a\tb", "line\nbreak", "line\r\nbreak", " outer ", "Tumo\u0308r",
    "\u200bzero", "é", "'", "=1+1", "@x", "#", "# x", "\\", "\\n", "%s", "{x}", "../x", "a/b", "CON",
    "nul.txt", ".", "..", "x" * 300, "1e3", "007", "１２", "TRUE", "NaN", "N/A", "-", "null", "癌", "🔬",
    "\u202ertl", "\x1b[31mred", "\x07", "\ufeffx", "a\u2028b", "T1+", "T1?", "İ", "ß", "ﬁ", "a\u00a0b",
    "<b>x</b>", "$(x)", "`x`", "a|b", "0", "p_x", "slide_id",
)  # fmt: skip


def rows_of(kind: str) -> list[list[str]]:
    """A sound table of a kind."""
    ids = [f"s{i:02}" for i in range(_N)]
    if kind == "labels":
        return [["slide_id", "case_id", "label"], *([s, f"p{i}", "ab"[i % 2]] for i, s in enumerate(ids))]
    if kind == "splits":
        parts = ("train", "train", "validation", "test")
        return [["slide_id", "part"], *([s, parts[i % 4]] for i, s in enumerate(ids))]
    if kind == "exclusion":
        return [[s] for s in ids[:5]]
    if kind == "mpp":
        return [["slide_id", "mpp"], *([s, f"0.2{i}"] for i, s in enumerate(ids))]
    if kind == "known failures":
        return [["slide_id", "reason"], *([s, f"reason {i}"] for i, s in enumerate(ids))]
    if kind == "predictions":
        head = ["slide_id", "case_id", "label", "prediction", "p_a", "p_b"]
        return [head, *([s, f"p{i}", "ab"[i % 2], "a", "0.75", "0.25"] for i, s in enumerate(ids))]
    if kind == "ledger":
        head = [
            "slide_id",
            "path",
            "status",
            "reason",
            "tiles",
            "failed_reads",
            "seconds",
            "reader",
            "mpp",
            "mpp_source",
        ]
        return [
            head,
            *([s, f"{s}.svs", "done", "", "9", "0", "1.5", "openslide", "0.5", "tiff"] for s in ids),
        ]
    head = "slide_id path reader vendor width_px height_px n_levels mpp_x mpp_y mpp_source fingerprint"
    row = ["openslide", "aperio", "900", "800", "2", "0.5", "0.5", "vendor", "ab", "7", ""]
    return [
        [*head.split(), "size_bytes", "problem", "duplicate_of"],
        *([s, f"{s}.svs", *row, ""] for s in ids),
    ]


def read_label_rows(path: Path) -> list[tuple[str, str, str]]:
    """Slide, patient and class of each row of labels."""
    return [(row.slide_id, row.case_id, row.label) for row in read_labels(path).rows]


def _exclusion(path: Path) -> object:
    labels = path.with_name("labels.csv")
    labels.write_text(
        "slide_id,case_id,label\n" + "".join(f"s{i:02},p{i},{'ab'[i % 2]}\n" for i in range(_N))
    )
    kept = {row.slide_id for row in read_labels(f"{labels}?exclude={path}").rows}
    return sorted({f"s{i:02}" for i in range(_N)} - kept)


def _splits(path: Path) -> object:
    return [
        [sorted(fold.part(part)) for part in ("train", "validation", "test")]
        for fold in read_any_splits(path).folds
    ]


def _predictions(path: Path) -> object:
    frame = read_predictions(path)
    return [
        list(map(str, row))
        for row in frame[["slide_id", "case_id", "label", "prediction", "p_a", "p_b"]].to_numpy()
    ]


def _ledger(path: Path) -> object:
    return [repr(row) for row in read_ledger(path)]


def _slides(path: Path) -> object:
    return [repr(row) for row in read_slides_csv(path)]


TABLES: dict[str, Callable[[Path], object]] = {
    "labels": read_label_rows, "splits": _splits, "exclusion": _exclusion, "mpp": read_mpp_table,
    "known failures": read_known_failures, "predictions": _predictions, "ledger": _ledger,
    "inventory": _slides,
}  # fmt: skip


def written(rows: list[list[str]], **style: Any) -> str:
    """The table as text."""
    text = io.StringIO()
    csv.writer(text, lineterminator=style.pop("lineterminator", "\n"), **style).writerows(rows)
    return text.getvalue()


def _restyled(rows: list[list[str]], rng: random.Random) -> tuple[bytes, str]:
    """The same table in another style; read, it is the same or refused."""
    text = written(rows)
    styles: dict[str, Callable[[], bytes]] = {
        "BOM": lambda: text.encode("utf-8-sig"),
        "UTF-16": lambda: text.encode("utf-16"),
        "UTF-32": lambda: text.encode("utf-32"),
        "CRLF": lambda: text.replace("\n", "\r\n").encode(),
        "CR": lambda: text.replace("\n", "\r").encode(),
        "mixed line ends": lambda: text.replace("\n", "\r\n", len(rows) // 2).encode(),
        "quoted": lambda: written(rows, quoting=csv.QUOTE_ALL).encode(),
        "semicolons": lambda: written(rows, delimiter=";").encode(),
        "tabs": lambda: written(rows, delimiter="\t").encode(),
        "sep line": lambda: b"sep=;\n" + written(rows, delimiter=";").encode(),
        "bars": lambda: written(rows, delimiter="|").encode(),
        "blank lines": lambda: text.replace("\n", "\n\n").encode(),
        "blanks": lambda: "\n".join(",".join(f" {cell} " for cell in row) for row in rows).encode() + b"\n",
        "trailing commas": lambda: text.replace("\n", ",,\n").encode(),
        "no last line end": lambda: text.rstrip("\n").encode(),
        "decimal commas": lambda: written(rows, delimiter=";").replace(".", ",").encode(),
        "columns moved": lambda: written([row[::-1] for row in rows]).encode(),
    }  # fmt: skip
    style = rng.choice(list(styles))
    return styles[style](), style


def _spoilt(rows: list[list[str]], rng: random.Random) -> tuple[bytes, str]:
    """The table with one thing wrong."""
    rows = [list(row) for row in rows]
    row, column = rng.randrange(len(rows)), rng.randrange(len(rows[0]))
    way = rng.choice(
        (
            "cell",
            "cell",
            "cell",
            "bytes",
            "cut",
            "NUL",
            "long",
            "short row",
            "long row",
            "twice",
            "latin",
            "quote",
            "row lost",
            "header twice",
            "zeros",
        )
    )
    if way == "cell":
        rows[row][column] = rng.choice((*ODD_TEXTS, "9" * 400, "1e400", "-1", "nan", "0x10", "1_0", "٣", ""))
        return written(rows).encode(), f"{way} {rows[0][column]} {rows[row][column]!r:.20}"
    if way == "long":
        rows[row][column] = "x" * 200_000
    elif way == "short row":
        del rows[row][column:]
    elif way == "long row":
        rows[row] += ["x"] * 3
    elif way == "twice":
        rows.append([*rows[row][:-1], "other"])
    elif way == "header twice":
        rows[0][column] = rows[0][column - 1]
    data = bytearray(written(rows).encode())
    at = rng.randrange(len(data))
    if way == "bytes":
        data[at] = rng.randrange(256)
    elif way == "cut":
        del data[at:]
    elif way in ("NUL", "latin", "quote"):
        data[at:at] = {"NUL": b"\0", "latin": b"\xe9", "quote": b'"'}[way]
    elif way == "zeros":
        data[at : at + 40] = bytes(len(data[at : at + 40]))
    elif way == "row lost":
        data[at : at + 10] = b""
    return bytes(data), way


def _judge_table(read: Callable[[Path], Any], expected: object, same: bool, path: Path) -> tuple[str, str]:
    found = read(path)
    if found == expected:
        return "same", ""
    if same:
        return "silent", f"{found!s:.200}"
    # As many rows as pandas sees, with its texts in them.
    text = path.read_bytes().decode("utf-8-sig")
    if read is _exclusion:  # lines, no table
        listed = {line.strip(' "') for line in text.splitlines()}
        strange = set(found) - listed
        return ("silent", f"{strange} are not in it") if strange else ("other", f"{found}")
    frame = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False, sep=max(",;\t", key=text.count))
    told = [[unicodedata.normalize("NFC", cell.strip()) for cell in row] for row in frame.to_numpy().tolist()]
    told = [row for row in told if any(row)]
    if read is _splits:
        found = [slide_id for part in found[0] for slide_id in part]
    if len(found) != len(told):
        return "silent", f"{len(found)} rows, where pandas sees {len(told)}: {found!s:.200}"
    rows = zip(found, told, strict=True) if read in (read_label_rows, _predictions) else ()
    if strange := [cell for row, other in rows for cell in row[:3] if cell not in other]:
        return "silent", f"{strange[0]!r} is in no cell of its row"
    return "other", f"{found!s:.200}"


def inputs(count: int, seed: int, work: Path, data: Path | None) -> Iterator[Result]:
    """Tables in other styles and tables with one thing wrong."""
    folder = work / "empty"
    folder.mkdir()
    items: list[Item] = []
    for number in range(count):
        rng = random.Random(f"{seed} table {number}")
        kind = list(TABLES)[number % len(TABLES)]
        rows, name = rows_of(kind), f"{'excluded' if kind == 'exclusion' else 'table'}.csv"
        sound = work / name
        sound.write_text(written(rows))
        restyle = rng.random() < 0.4
        content, what = (_restyled if restyle else _spoilt)(rows, rng)
        # A comma for a point is another number, and a sign for a semicolon another table.
        same = restyle and what not in ("decimal commas",)
        judge = partial(_judge_table, TABLES[kind], TABLES[kind](sound), same)
        items.append((kind, f"{number} {what}", content, name, judge))
    yield from judge_all(items, folder, work)
