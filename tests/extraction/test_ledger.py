"""The ledger and its journal."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.extraction.ledger import (
    Journal,
    LedgerRow,
    merge_rows,
    read_journal,
    read_ledger,
    read_or_rebuild,
    write_ledger,
)

ROWS = (
    LedgerRow("b", "x/b.svs", "failed", 'it said "no", and\nmore; µ'),
    LedgerRow("a", "a.svs", "done", "", 12, 1, 3.25, "openslide", 0.2525, "vendor", 7),
)


def test_the_ledger_is_sorted_and_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "ledger.csv"
    write_ledger(ROWS, path)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == (
        "slide_id,path,status,reason,tiles,failed_reads,seconds,reader,mpp,mpp_source,artifact_tiles,features_set,"
        "artifacts_found,pen,fold,border,blur"
    )
    assert lines[1] == "a,a.svs,done,,12,1,3.25,openslide,0.2525,vendor,7,,0,0,0,0,0"
    assert len(lines) == 3  # a line break in a reason makes no line
    first, second = read_ledger(path)
    assert first == ROWS[1]
    assert second.reason == 'it said "no", and more; µ'
    assert second.mpp is None


def test_ledgers_and_journals_of_the_first_version_are_read(tmp_path: Path) -> None:
    (tmp_path / "ledger.csv").write_text(
        "slide_id,path,status,reason,tiles,failed_reads,seconds,reader,mpp,mpp_source\n"
        "a,a.svs,done,,12,1,3.25,openslide,0.2525,vendor\n"
    )
    (row,) = read_ledger(tmp_path / "ledger.csv")
    assert row == LedgerRow("a", "a.svs", "done", "", 12, 1, 3.25, "openslide", 0.2525, "vendor", 0, "")
    line = {"slide_id": "a", "path": "a.svs", "status": "failed", "reason": "x", "tiles": 0, "failed_reads": 0,
            "seconds": 0.0, "reader": "", "mpp": None, "mpp_source": ""}  # fmt: skip
    (tmp_path / "ledger.jsonl").write_text(json.dumps(line) + "\n")
    assert read_journal(tmp_path / "ledger.jsonl") == (LedgerRow("a", "a.svs", "failed", "x"),)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: b"",
        lambda text: text[: len(text) // 2],
        lambda text: text[:-40],
        lambda text: text.replace(b"openslide", b"open\rslide"),
        lambda text: text.replace(b"done", b"d\x00ne"),
        lambda text: text.replace(b"a.svs", b"\xff\xfe"),
        lambda text: text.replace(b",12,", b",twelve,"),
        lambda text: text.replace(b",12,", b",1e400,"),
        lambda text: text.replace(b",12,", b",12,,,,,,,,,"),
        lambda text: text.replace(b",done,", b",,"),
    ],
)
def test_a_damaged_ledger_is_rebuilt_with_a_remark(
    tmp_path: Path, damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "ledger.csv"
    write_ledger(ROWS, path)
    path.write_bytes(damage(path.read_bytes()))
    with Journal(tmp_path / "ledger.jsonl") as journal:
        journal.append(LedgerRow("a", "a.svs", "failed", "an earlier attempt"))
        for row in ROWS:
            journal.append(row)
        journal.append(LedgerRow("c", "c.svs", "done", features_set="1um"))
    assert read_or_rebuild(path, tmp_path / "ledger.jsonl") == (ROWS[1], ROWS[0])
    (record,) = caplog.records
    assert "rebuilt from ledger.jsonl, which has 2 slides" in record.getMessage()


@pytest.mark.parametrize(
    "text",
    [
        "slide_id,status\na,done\n",
        "",
        "slide_id,path,status,reason,tiles,failed_reads,seconds,reader,mpp,mpp_source\na,a,odd,,1,0,1,,,\n",
    ],
)
def test_no_ledger_is_said(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(InputError, match=r"x\.csv"):
        read_ledger(tmp_path / "x.csv")


def test_a_torn_line_costs_itself_only(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with Journal(path) as journal:
        journal.append(ROWS[0])
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])
    with Journal(path) as journal:
        journal.append(ROWS[1])
    assert read_journal(path) == ROWS
    assert read_journal(tmp_path / "none") == ()


def test_the_latest_row_of_a_slide_counts() -> None:
    again = LedgerRow("b", "x/b.svs", "done", tiles=4)
    assert merge_rows(ROWS, [again]) == (ROWS[1], again)
