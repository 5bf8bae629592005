"""JSON, YAML and GeoJSON files with one value of nonsense, or damaged as text."""

import json
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from fuzz_kinds.harness import Item, Result, judge_all, nonsense_in_json

from wsi_ncmi.cohorts import read_splits
from wsi_ncmi.extraction.ledger import read_journal, read_or_rebuild
from wsi_ncmi.tissue import read_annotations
from wsi_ncmi.workflows import load_config

GEOJSON = {
    "type": "FeatureCollection",
    "features": [
        {
            "type": "Feature", "properties": {"classification": {"name": "Tumor"}},
            "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [9, 9], [0, 9], [0, 0]]]},
        }
    ] * 2,
}  # fmt: skip
SPLITS = {
    "schema": "wsi-ncmi/splits/1", "kind": "folds", "warnings": [],
    "folds": [{"train": ["s0", "s1"], "validation": ["s2"], "test": ["s3"]}] * 2,
}  # fmt: skip
ROW = {
    "slide_id": "s", "path": "s.svs", "status": "done", "reason": "", "tiles": 9, "failed_reads": 0,
    "seconds": 1.5, "reader": "openslide", "mpp": 0.5, "mpp_source": "tiff",
}  # fmt: skip
CONFIG = {
    "slides": "slides", "labels": "labels.csv", "grid": {"mpp": 0.5, "tile_px": 256},
    "encoder": {"name": "descriptor"},
    "tissue": {"method": "otsu"}, "loss": {"name": "ncmi"}, "model": {"name": "abmil"},
    "training": {"epochs": 5, "learning_rate": 0.001}, "variants": {"x": {"grid": {"mpp": 1.0}}},
}  # fmt: skip


def _read_geojson(path: Path) -> object:
    return [(area.name, area.polygon.wkt) for area in read_annotations(path)]


def _read_splits(path: Path) -> object:
    return [
        [list(fold.part(part)) for part in ("train", "validation", "test")]
        for fold in read_splits(path).folds
    ]


def _read_journal(path: Path) -> object:
    return [repr(row) for row in read_journal(path)]


def _read_rebuilt(path: Path) -> object:
    ledger = path.with_name("ledger.csv")
    ledger.write_bytes(b"\xff")
    return [repr(row) for row in read_or_rebuild(ledger, path)]


DOCUMENTS: dict[str, tuple[object, str, Callable[[Path], object]]] = {
    "GeoJSON": (GEOJSON, "a.geojson", _read_geojson),
    "splits.json": (SPLITS, "splits.json", _read_splits),
    "journal": (ROW, "ledger.jsonl", _read_journal),
    "journal, rebuilt from": (ROW, "ledger.jsonl", _read_rebuilt),
    "YAML": (CONFIG, "job.yaml", lambda path: repr(load_config(path))),
}


def _judge_document(read: Callable[[Path], Any], expected: object, path: Path) -> tuple[str, str]:
    found = read(path)
    if found == expected:
        return "same", ""
    if any(word in str(found).lower() for word in ("nan,", "nan)", "inf,", "inf)")):
        return "silent", f"{found!s:.200}"
    try:
        text = path.read_bytes().decode("utf-8-sig")
        (yaml.safe_load if path.suffix == ".yaml" else json.loads)(text)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        # Of a journal a torn line is left out.
        told = read is _read_geojson and read_annotations(path).notes
        return ("refused" if not found or told else "silent"), f"the reference refuses it ({error!s:.80})"
    return "other", f"{found!s:.200}"


def inputs(count: int, seed: int, work: Path, data: Path | None) -> Iterator[Result]:
    """JSON and YAML files with one value of nonsense, or damaged as text."""
    folder = work / "empty"
    folder.mkdir()
    items: list[Item] = []
    for number in range(count):
        rng = random.Random(f"{seed} document {number}")
        kind = list(DOCUMENTS)[number % len(DOCUMENTS)]
        value, name, read = DOCUMENTS[kind]
        sound = work / name
        text = (yaml.safe_dump(value) if name.endswith(".yaml") else json.dumps(value)).encode()
        sound.write_bytes(text + b"\n")
        expected = read(sound)
        if rng.random() < 0.6:
            content, what = nonsense_in_json(json.dumps(value).encode(), rng)
        else:
            content, what = _spoilt_text(text, rng)
        items.append(
            (kind, f"{number} {what}", content + b"\n", name, partial(_judge_document, read, expected))
        )
    yield from judge_all(items, folder, work)


def _spoilt_text(text: bytes, rng: random.Random) -> tuple[bytes, str]:
    data, at = bytearray(text), rng.randrange(len(text))
    way = rng.choice(("byte", "cut", "NUL", "latin", "BOM", "UTF-16", "deep", "alias", "brace"))
    if way == "byte":
        data[at] = rng.randrange(256)
    elif way == "cut":
        del data[at:]
    elif way in ("NUL", "latin", "brace"):
        data[at:at] = {
            "NUL": b"\0",
            "latin": b"\xe9",
            "brace": rng.choice((b"{", b"]", b"&x ", b"*x", b"!!python/x ")),
        }[way]
    elif way == "BOM":
        data[:0] = b"\xef\xbb\xbf"
    elif way == "UTF-16":
        return text.decode().encode("utf-16"), way
    elif way == "deep":
        data[:] = rng.choice((b"[", b'{"a":', b"- ")) * 50_000
    else:
        data[:] = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
            b"%c: &%c [%s]\n" % (c, c, b",".join([b"*%c" % (c - 1)] * 9)) for c in range(98, 106)
        )
    return bytes(data), way
