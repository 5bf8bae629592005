"""Folders with pipes, odd names, results and nothing, from the command line."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.slides.conftest import write_svs
from wsi_ncmi.cli.app import app

runner = CliRunner()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two sound slides; the working folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        write_svs(tmp_path / f"{name}.svs", mpp="0.5")
    return tmp_path


def rows(path: Path) -> dict[str, str]:
    with path.open(newline="", encoding="utf-8") as handle:
        return {row["path"]: row["status"] for row in csv.DictReader(handle)}


def test_an_inventory_of_nothing_is_wrong_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("no slide")
    result = runner.invoke(app, ["inventory", "."])
    assert result.exit_code == 2
    assert "There is no slide in ." in result.output
    assert not (tmp_path / "slides.csv").exists()


def test_odd_files_cost_themselves_a_row_and_results_are_no_slides(folder: Path) -> None:
    """The output folder lies inside the slide folder; the second job finds the same slides as the first."""
    os.mkfifo(folder / "pipe.svs")
    (folder / "back\\slash.svs").symlink_to(folder / "a.svs")
    (folder / "return\r.svs").symlink_to(folder / "b.svs")
    (folder / "x.kfb").write_bytes(b"KFB")
    (folder / "features").mkdir()  # the user's own
    command = ["extract", ".", "--out", "results", "--encoder", "descriptor", "--workers", "1"]
    command += ["--default-mpp", "0.5", "--quiet"]
    found = []
    for _ in range(2):
        result = runner.invoke(app, command)
        assert result.exit_code == 1, result.output
        found.append(rows(folder / "results" / "ledger.csv"))
    assert list(found[0]) == list(found[1])
    assert {path for path, status in found[0].items() if status == "done"} == {"a.svs", "b.svs"}
    assert {path for path, status in found[1].items() if status == "skipped"} == {"a.svs", "b.svs"}
    failed = {path for path, status in found[1].items() if status == "failed"}
    assert failed == {"pipe.svs", "back\\\\slash.svs", "return\\r.svs", "x.kfb"}


def test_the_slide_folder_itself_as_output_folder(folder: Path) -> None:
    command = [
        "extract",
        ".",
        "--out",
        ".",
        "--encoder",
        "descriptor",
        "--workers",
        "1",
        "--default-mpp",
        "0.5",
    ]
    for status in ("done", "skipped"):
        result = runner.invoke(app, command)
        assert result.exit_code == 0, result.output
        assert rows(folder / "ledger.csv") == {"a.svs": status, "b.svs": status}
