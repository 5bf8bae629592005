"""Cleaning an output folder: only what was named and is old, nothing before --yes, no links, no foreign folder."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from wsi_ncmi.cli.app import app
from wsi_ncmi.core.files import OUTPUT_MARKER
from wsi_ncmi.core.provenance import write_record

DAY_S = 86400
TEMPORARY = {"slides/.a.json.999999999-0abc.partial", "features/enc/.claims/a", ".x.999999999-1a.partial/y"}
QUARANTINE = {"features/enc/quarantine/a.h5"}
HISTORY = {"history/a.20250101T000000Z/slides/a.json", "history/a.20250101T000000Z/heatmaps/a.png"}
FEATURES = {
    "features/enc/a.h5",
    "features/enc@1/a.h5",
    "tissue/a.geojson",
    "thumbnails/a.jpg",
    "thumbnails@1/a.jpg",
}
PREDICTIONS = {
    "slides/a.json",
    "slides/a.html",
    "answers/a.json",
    "attention/a.geojson",
    "heatmaps/a.png",
    "dicom/a/b.dcm",
    "shadow/m.csv",
}
LOGS = {"ledger.jsonl"}
STAYS = {
    OUTPUT_MARKER, "predictions.csv", "ledger.csv", "slides.csv", "watch.json", "audit-log/audit-000001.jsonl",
    "report.html", "notes.txt", "mine/history/a",
}  # fmt: skip
ALL = TEMPORARY | QUARANTINE | HISTORY | FEATURES | PREDICTIONS | LOGS | STAYS


def age(path: Path, days: float) -> None:
    at = time.time() - days * DAY_S
    os.utime(path, (at, at), follow_symlinks=False)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    for name in ALL:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x" * 1_000_000 if name in HISTORY else b"x")
    for path in folder.rglob("*"):
        age(path, 40)
    return folder


def left(out: Path) -> set[str]:
    return {
        path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file() or path.is_symlink()
    }


def clean(out: Path, *arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["clean", str(out), *arguments])
    assert done.exit_code == code, done.output
    return done.output


def test_without_yes_nothing_is_touched(out: Path) -> None:
    said = clean(out, "--kind", "temporary,quarantine,history,features,predictions,logs")
    assert left(out) == ALL
    date = time.strftime("%Y-%m-%d", time.gmtime(time.time() - 40 * DAY_S))
    assert f"history: 1 item would go, 2.0 MB, the oldest of {date}." in said
    assert "Nothing was touched; --yes removes it." in said
    assert "features/enc/quarantine/a.h5: 0.0 MB" in said
    assert "its tables have no answer any more" in said


def test_by_default_features_predictions_and_logs_stay(out: Path) -> None:
    said = clean(out, "--yes")
    assert left(out) == FEATURES | PREDICTIONS | LOGS | STAYS
    assert "quarantine: 1 item removed" in said
    assert "--yes" not in said
    assert "history: nothing that old." in clean(out, "--yes")


@pytest.mark.parametrize(
    ("kind", "gone"),
    [
        ("temporary", TEMPORARY), ("quarantine", QUARANTINE), ("history", HISTORY), ("features", FEATURES),
        ("predictions", PREDICTIONS), ("logs", LOGS),
    ],
)  # fmt: skip
def test_only_what_is_named_goes(out: Path, kind: str, gone: set[str]) -> None:
    clean(out, "--kind", kind, "--yes")
    assert left(out) == ALL - gone


def test_what_is_younger_stays(out: Path) -> None:
    age(out / "history/a.20250101T000000Z/heatmaps/a.png", 5)  # one file of an item keeps all of it
    age(out / "features/enc/quarantine/a.h5", -400)  # a clock that went wrong
    clean(out, "--yes")
    assert left(out) >= HISTORY | QUARANTINE
    clean(out, "--older-than", "50", "--kind", "features", "--yes")
    assert left(out) >= FEATURES
    clean(out, "--older-than", "4", "--kind", "history", "--yes")
    assert not left(out) & HISTORY
    assert "older" in clean(out, "--older-than", "0.5", "--yes", code=2)


def test_a_file_that_somebody_writes_stays(out: Path) -> None:
    written = out / f".predictions.csv.{os.getpid()}-0a.partial"
    written.write_text("x")
    clean(out, "--kind", "temporary", "--yes")
    assert written.exists()  # it is young
    os.utime(
        written, (time.time() + 5, time.time() + 5)
    )  # and even where a clock makes it old, its writer lives
    age(written, 40)
    assert written.name in left(out)


def test_links_are_neither_followed_nor_removed(out: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "quarantine").mkdir(parents=True)
    for name in ("a.h5", "quarantine/b.h5"):
        (other / name).write_text("x")
        age(other / name, 40)
    (out / "features" / "linked").symlink_to(other)
    (out / "history" / "linked").symlink_to(other)
    inside = out / "history" / "b"
    inside.mkdir()
    (inside / "link").symlink_to(other)
    for path in (inside / "link", inside, out / "features" / "linked", out / "history" / "linked"):
        age(path, 40)
    clean(out, "--kind", "quarantine,history,features", "--yes")
    assert {"a.h5", "quarantine/b.h5"} <= left(other)
    assert {"features/linked", "history/linked"} <= left(out)
    assert not inside.exists()


def test_a_folder_of_something_else_is_refused(out: Path, tmp_path: Path) -> None:
    (out / OUTPUT_MARKER).unlink()
    assert "is no output folder of wsi-ncmi" in clean(out, "--yes", code=2).replace("\n", " ")
    (out / "run.json").write_text("{}")
    clean(out, "--yes", code=2)
    assert left(out) == ALL - {OUTPUT_MARKER} | {"run.json"}
    write_record(out / "run.json", config={})
    clean(out, "--yes")
    assert not left(out) & HISTORY
    assert "There is no file or folder" in clean(tmp_path / "nowhere", code=2)


def test_what_can_not_be_removed_is_told_and_the_rest_goes(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = Path.unlink

    def refused(path: Path, missing_ok: bool = False) -> None:
        if path.name == "a.h5":
            raise PermissionError(13, "Permission denied")
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refused)
    said = clean(out, "--yes", code=1)
    assert "features/enc/quarantine/a.h5: Permission denied" in said
    assert left(out) == ALL - TEMPORARY - HISTORY
