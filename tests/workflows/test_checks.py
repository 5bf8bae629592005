"""Order of checks: what can be known before the first slide is opened is told before, and nothing is made."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from wsi_ncmi.cli.app import app
from wsi_ncmi.cohorts import Cohort, CohortRow
from wsi_ncmi.slides import inventory
from wsi_ncmi.workflows.checks import _present
from wsi_ncmi.workflows.config import JobConfig

SLIDES = [f"p{patient}_{number}" for patient in range(6) for number in range(2)]


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of files with slides' names, labels of six patients, and a reader that must not be reached."""
    (tmp_path / "slides").mkdir()
    for name in SLIDES:
        (tmp_path / "slides" / f"{name}.svs").write_bytes(b"II*\0")
    write_labels(tmp_path, {name: "ab"[int(name[1]) % 2] for name in SLIDES})

    def opened(slides: Sequence[object], *_: object) -> None:
        pytest.fail(f"{slides[0]} was opened")

    monkeypatch.setattr(inventory, "inspect_slides", opened)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_labels(folder: Path, labels: dict[str, str]) -> None:
    rows = [f"{name},{name.partition('_')[0]},{label}\n" for name, label in labels.items()]
    (folder / "labels.csv").write_text("slide_id,case_id,label\n" + "".join(rows))


def write_folds(folder: Path, **parts: list[str]) -> str:
    content = {"schema": "wsi-ncmi/splits/1", "folds": [parts]}
    (folder / "splits.json").write_text(json.dumps(content))
    return "splits=splits.json"


def refused(*overrides: str) -> str:
    """The one sentence that ends ``run`` with exit code 2; the folder stays as it was."""
    before = sorted(path for path in Path().rglob("*"))
    given = [f"--set={each}" for each in ("slides=slides", "labels=labels.csv", "out=out", *overrides)]
    result = CliRunner().invoke(app, ["run", "demo", *given])
    assert result.exit_code == 2, result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert sorted(path for path in Path().rglob("*")) == before
    return result.stderr


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.name=abmill", ["'model.name' (--set model.name=abmill)", "did you mean 'abmil'?"]),
        ("model.heads=2", ["(--set model.heads=2)", "the model 'abmil' has no setting 'heads'"]),
        ("group=slide_id", ["(--set group=slide_id)", "did you mean 'split.group'?"]),
        ("losses.0.name=nmci", ["(--set losses.0.name=nmci)", "did you mean 'ncmi'?"]),
        ("losses=[nmci]", ["(--set losses=[nmci])", "did you mean 'ncmi'?"]),
        ("loss.powr=0.5", ["the loss 'ncmi' has no setting 'powr'", "did you mean 'power'?"]),
        ("encoder.name=descripter", ["--set encoder.name=descripter", "descriptor"]),
        ("split.group=patient", ["--set split.group=patient", "case_id, centre, slide_id"]),
    ],
)
def test_a_wrong_name_ends_run_before_anything(job: Path, override: str, words: list[str]) -> None:
    message = refused(*(["losses=[ncmi]"] if override.startswith("loss.") else []), override)
    for each in words:
        assert each in message
    assert "--group" not in message
    assert "demo.yaml" not in message


def test_labels_that_match_no_slide(job: Path) -> None:
    write_labels(job, {"x_1": "a", "y_1": "b"})
    assert (
        "None of the 2 labelled slides is below slides (labels have ids like 'x_1', slides like 'p0_0')"
        in (refused())
    )


def test_a_single_class_among_the_slides(job: Path) -> None:
    write_labels(job, {"p0_0": "a", "p1_0": "a", "gone_0": "b"})
    assert "All 2 labelled slides below slides have the class 'a'" in refused()


def test_more_folds_than_patients(job: Path) -> None:
    assert "patients" in refused("split.folds=4")


def test_labels_without_patients(job: Path) -> None:
    (job / "labels.csv").write_text("slide_id,label\np0_0,a\np1_0,b\n")
    message = refused()
    assert "case_id" in message
    assert "'split.group' slide_id" in message
    assert "--group" not in message


def test_a_splits_file_of_other_slides(job: Path) -> None:
    other = write_folds(job, train=["a", "b"], validation=["c"], test=["d"])
    assert "splits.json" in refused(other)


@pytest.mark.parametrize("spelled", ["P{}_{}", "p{}-{}", "p0{}_0{}"])
def test_a_splits_file_that_spells_slides_otherwise(job: Path, spelled: str) -> None:
    train, validation, test = (
        [spelled.format(p, n) for p in each for n in (0, 1)] for each in ((0, 1), (2, 3), (4, 5))
    )
    assert "and 'p0_0' differ only in case" in refused(
        write_folds(job, train=train, validation=validation, test=test)
    )
    rows = [f"{k},{train[k]},{validation[k]},{test[k]}\n" for k in range(4)]
    Path("splits_0.csv").write_text(",train,val,test\n" + "".join(rows))  # CLAM's
    assert "there and 'p0_0' differ only in case" in refused("splits=splits_0.csv")


def test_a_splits_file_that_leaks(job: Path, caplog: pytest.LogCaptureFixture) -> None:
    leaking = write_folds(job, train=SLIDES[:5], validation=SLIDES[5:8], test=SLIDES[8:])
    assert "p2" in refused(leaking)
    assert "splits.json holds 1 fold: split.folds (3) has no effect." in caplog.text


def test_no_slides_and_no_labels(job: Path) -> None:
    assert "--set slides=" in refused("slides=null")
    assert "--set labels=" in refused("labels=null")
    assert "nowhere" in refused("slides=nowhere")
    (job / "empty").mkdir()
    assert "no slide below empty" in refused("slides=empty")


def test_an_output_folder_that_is_a_file(job: Path) -> None:
    (job / "file").write_text("")
    assert "can't be written to (file is a file)" in refused("out=file/out")


def test_extract_makes_nothing_when_the_disk_is_too_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.extraction.conftest import write_slide

    write_slide(tmp_path / "slides" / "a.tif", 0)
    monkeypatch.setattr("wsi_ncmi.extraction.disk_space.shutil.disk_usage", lambda _: (0, 0, 10))
    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["extract", str(tmp_path / "slides"), "--out", str(out)])
    assert result.exit_code in (1, 2)
    assert not out.exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--loss", "nmci"], ["no loss named 'nmci'", "did you mean 'ncmi'?"]),
        (["--model", "abmill"], ["no model named 'abmill'", "did you mean 'abmil'?"]),
        (
            ["--loss", "ce", "--set", "losses.0.power=0.5"],
            ["(--set losses.0.power=0.5)", "the loss 'ce' has no setting 'power'"],
        ),
        (["--set", "loss.power=x"], ["'losses.0.power' (--set loss.power=x)"]),
        (["--set", "loss.power=0.5"], ["There is no file or folder x.npz; check --features"]),
        (["--set", "training.epoch=3"], ["(--set training.epoch=3)", "did you mean 'epochs'?"]),
    ],
)
def test_a_wrong_setting_ends_train_before_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["train", "--features", "x.npz", "--out", "run", *flags])
    assert result.exit_code == 2, result.stderr
    assert not list(tmp_path.iterdir())
    assert len(result.stderr.strip().splitlines()) == 1
    for each in words:
        assert each in result.stderr


def test_the_demo_draws_no_slide_for_a_wrong_setting(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "demo"), "--set", "model=abmill"])
    assert result.exit_code == 2
    assert "(--set model=abmill)" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", ["slides", "labels", "out", "splits"])
def test_the_paths_of_a_record_are_to_be_given_anew(job: Path, key: str) -> None:
    assert f"'{key}' is '…/there': the record of a run leaves the folders" in refused(f"{key}=…/there")


def test_labels_match_slides_as_features_do_and_near_misses_are_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    labelled = Cohort(
        tuple(CohortRow(name, f"p{i}", "ab"[i % 2]) for i, name in enumerate(("Tum\u00f6r", "b.svs", "S_1"))),
        ("a", "b"),
    )
    found = _present(
        labelled, ("Tumo\u0308r", "b", "s-01"), JobConfig(slides=Path("slides"), out=Path("out"))
    )
    assert found.slide_ids == ("Tum\u00f6r", "b.svs")
    assert (
        "The label of 'S_1' belongs to no slide, but there is 's-01': these differ only in case"
        in caplog.text
    )
