"""``docs/reference/formats.md`` tells every dataset, attribute and field that is written, and its example runs."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import h5py
import pytest

from wsi_ncmi.encoders import Encoder
from wsi_ncmi.extraction.ledger import LedgerRow
from wsi_ncmi.extraction.pipeline.pipeline import extract_slide
from wsi_ncmi.features import Identity
from wsi_ncmi.features.checksum_trailer import TRAILER_BYTES
from wsi_ncmi.features.schema import FEATURES_SCHEMA

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "formats.md"


@pytest.mark.skipif(not PAGE.is_file(), reason="an installed package has no docs")
def test_the_page_is_the_file(tasks, encoder: Encoder) -> None:
    text = PAGE.read_text(encoding="utf-8")
    task = tasks()[1]
    extract_slide(task, encoder)
    path = task.feature_path("descriptor")
    with h5py.File(path) as file:
        names = {f"`/{name}`" for name in file}
        names |= {f"`{name}`" for name in (*file.attrs, *file["coords"].attrs, *file["artifacts"].attrs)}
    names |= {f"`{field.name}`" for field in fields(LedgerRow)}
    assert sorted(name for name in names if name not in text) == []
    assert f"`{FEATURES_SCHEMA}`" in text
    assert f"one line of {TRAILER_BYTES} bytes" in text
    rows = [line for line in text.splitlines() if "| ● |" in line]
    marked = {name for line in rows for name in re.findall(r"`(\w+)`", line.split("|")[1])}
    assert marked == {field.name for field in fields(Identity)}
    (example,) = re.findall(r"```python\n(.*?)```", text, re.S)
    found: dict[str, object] = {}
    exec(example.replace("OUT/features/descriptor/slide.h5", str(path)), found)
    assert len(found["features"]) == len(found["coords"]) == len(found["pen"]) > 20
