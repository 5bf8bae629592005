"""``run.json`` holds no absolute path."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.provenance import path_from, read_record, relative_paths, write_record


def test_absolute_paths_are_cut_wherever_they_hide(tmp_path: Path) -> None:
    secret = "/home/dr_jones/patients"
    record = write_record(
        tmp_path / "run.json",
        config={
            "slides": Path(secret),
            "labels": f"camelyon17:{secret}/labels.csv",
            "deep": [{"x": f"{secret}/y"}],
        },
        data={"n": 3},
    )
    text = (tmp_path / "run.json").read_text()
    assert "dr_jones" not in text
    assert record["config"]["labels"] == "camelyon17:…/labels.csv"
    assert json.loads(text) == record == read_record(tmp_path / "run.json")


def test_files_in_the_settings_of_labels_are_cut_too() -> None:
    given = "stamp:/home/jones/clini.csv?slides=/home/jones/slide.csv&label=MSI"
    assert relative_paths(given) == "stamp:…/clini.csv?slides=…/slide.csv&label=MSI"
    assert relative_paths("tcga:a.csv?exclude=b/bad.txt") == "tcga:a.csv?exclude=b/bad.txt"


@pytest.mark.parametrize("value", [3, 0.5, None, True, "timm:resnet50", "relative/path"])
def test_everything_else_stays(value: object) -> None:
    assert relative_paths(value) == value


def test_a_foreign_record_is_refused(tmp_path: Path) -> None:
    assert read_record(tmp_path / "none.json") == {}
    (tmp_path / "run.json").write_text('{"schema": "other"}')
    with pytest.raises(InputError, match="other"):
        read_record(tmp_path / "run.json")
    (tmp_path / "run.json").write_text("[")
    with pytest.raises(InputError, match="can't be read"):
        read_record(tmp_path / "run.json")


@pytest.mark.parametrize(
    ("path", "way"),
    [
        ("/data/job/out/features/uni", "../out/features/uni"),
        ("/data/features", "../../features"),
        ("/data/job/run/features.npz", "features.npz"),
        ("/scratch/alice/features", None),  # through the root
    ],
)
def test_a_way_between_folders_leads_past_no_one_elses(path: str, way: str | None) -> None:
    assert path_from(Path("/data/job/run"), Path(path)) == way


def test_a_way_past_the_home_folders_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/alice")
    assert path_from(Path("/home/alice/run"), Path("/home/bob/features")) is None
    assert path_from(Path("/home/alice/run"), Path("/home/alice/features")) == "../features"
