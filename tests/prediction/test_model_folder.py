"""A folder of bundles: one is current, changes are atomic, and going back needs one command."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.prediction.models import export, make_bundle, write_run
from wsi_ncmi.cli.app import app
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.prediction import load_model, model_folder
from wsi_ncmi.prediction.model_folder import current_name, list_bundles, promote_bundle, rollback


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three bundles that differ, one of them a folder."""
    root = tmp_path_factory.mktemp("made")
    (root / "models").mkdir()
    for number, name in enumerate(("a.zip", "b", "c.zip")):
        run = write_run(root / f"run{number}", folds=1, width=5 + number)
        export(make_bundle(run, reference=False), run, root / "models" / name)
    return root / "models"


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "models"))


def test_what_is_promoted_is_loaded_by_the_link(folder: Path) -> None:
    assert current_name(folder) == ""
    for name in ("a.zip", "b"):
        bundle = promote_bundle(folder / name)
        assert (folder / "current").readlink() == Path(name)  # relative: the folder may be mounted elsewhere
        assert load_model(folder / "current").digest == bundle.digest == load_model(folder / name).digest
    promote_bundle(folder / "b")  # again: nothing to do
    assert len((folder / "history.jsonl").read_text().splitlines()) == 2
    assert sorted(path.name for path in folder.iterdir()) == [
        "a.zip",
        "b",
        "c.zip",
        "current",
        "history.jsonl",
    ]


def test_each_rollback_goes_one_further_back(folder: Path) -> None:
    for name in ("a.zip", "b", "a.zip", "c.zip"):
        promote_bundle(folder / name)
    for name in ("a.zip", "b", "a.zip"):
        rollback(folder)
        assert current_name(folder) == name
    with pytest.raises(InputError, match="no bundle that was current before"):
        rollback(folder)
    promote_bundle(folder / "c.zip")
    rollback(folder)
    assert current_name(folder) == "a.zip"
    entries = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert [entry["what"] for entry in entries] == ["promoted"] * 4 + ["rolled back"] * 3 + [
        "promoted",
        "rolled back",
    ]
    assert entries[4]["before"] == "c.zip"
    assert entries[4]["digest"] == load_model(folder / "a.zip").digest


@pytest.mark.parametrize("step", ["_point", "_note"])
def test_what_was_killed_between_link_and_history_is_gone_back_from(
    folder: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    promote_bundle(folder / "a.zip")
    with monkeypatch.context() as patch:
        patch.setattr(model_folder, step, killed)
        with pytest.raises(KeyboardInterrupt):
            promote_bundle(folder / "b")
    assert current_name(folder) == ("b" if step == "_note" else "a.zip")
    promote_bundle(folder / "b")
    promote_bundle(folder / "c.zip")
    with monkeypatch.context() as patch:
        patch.setattr(model_folder, step, killed)
        with pytest.raises(KeyboardInterrupt):
            rollback(folder)
    assert current_name(folder) == "c.zip"
    rollback(folder)
    assert current_name(folder) == ("b" if step == "_point" else "a.zip")


def test_a_link_set_by_hand_is_gone_back_from(folder: Path) -> None:
    promote_bundle(folder / "a.zip")
    (folder / "current").unlink()
    (folder / "current").symlink_to("c.zip")
    rollback(folder)
    assert current_name(folder) == "a.zip"
    promote_bundle(folder / "b")
    rollback(folder)
    assert current_name(folder) == "a.zip"


def test_the_link_is_never_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    promote_bundle(folder / "a.zip")
    replace, seen = os.replace, []

    def watched(source: Path, target: Path) -> None:
        if Path(target).name == "current":
            seen.append(Path(target).readlink().name)
            replace(source, target)
            seen.append(Path(target).readlink().name)
        else:
            replace(source, target)

    monkeypatch.setattr(os, "replace", watched)
    promote_bundle(folder / "b")
    assert seen == ["a.zip", "b"]


def test_a_link_that_moves_while_a_folder_is_read_mixes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote_bundle(folder / "b")
    wanted, read = load_model(folder / "b").digest, Path.read_bytes

    def moving(path: Path) -> bytes:
        content = read(path)
        (folder / "current").unlink(missing_ok=True)
        return content

    monkeypatch.setattr(Path, "read_bytes", moving)
    assert load_model(folder / "current").digest == wanted
    assert not (folder / "current").exists()


def test_what_can_not_be_made_current_is_one_sentence(folder: Path) -> None:
    with pytest.raises(InputError, match="There is no bundle"):
        promote_bundle(folder / "d.zip")
    promote_bundle(folder / "a.zip")
    with pytest.raises(InputError, match="is a link; give the bundle itself"):
        promote_bundle(folder / "current")
    (folder / "b" / "MODEL_CARD.md").write_text("changed")
    with pytest.raises(InputError, match="was changed after the export"):
        promote_bundle(folder / "b")
    assert current_name(folder) == "a.zip"
    promote_bundle(folder / "c.zip")
    shutil.copy(folder / "c.zip", folder / "a.zip")
    with pytest.raises(InputError, match="isn't what was promoted on"):
        rollback(folder)
    (folder / "history.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match="can't be read"):
        rollback(folder)
    (folder / "current").unlink()
    (folder / "current").mkdir()
    with pytest.raises(InputError, match="is no link to a bundle"):
        promote_bundle(folder / "c.zip")
    with pytest.raises(InputError, match="There is no folder"):
        next(list_bundles(folder / "nowhere"))


def test_the_commands(folder: Path) -> None:
    def models(*arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, ["models", *arguments])
        assert done.exit_code == code, done.output
        return done.output

    assert "a.zip is current: run0, digest" in models("promote", str(folder / "a.zip"))
    models("promote", str(folder / "c.zip"), "--quiet")
    assert "a.zip is current" in models("rollback", str(folder))
    (folder / "b" / "MODEL_CARD.md").write_text("changed")
    (folder / "notes.txt").write_text("no bundle")
    lines = models("list", str(folder), code=1).splitlines()
    assert [line.split(":")[0].split() for line in lines] == [["current", "a.zip"], ["b"], ["c.zip"]]
    assert "PROBLEM MODEL_CARD.md of the bundle" in lines[1]
    rows = json.loads(models("list", str(folder), "--json", code=1))
    assert [row["current"] for row in rows] == [True, False, False]
    assert rows[2]["digest"] == load_model(folder / "c.zip").digest
    assert "no bundle that was current before" in models("rollback", str(folder), code=2)
