"""The export job: a trained run to a bundle, with what only the run knows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from tests.prediction.models import write_run
from tests.workflows.conftest import WIDTH
from wsi_ncmi.cohorts import open_bag_source
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.provenance import path_from, write_record
from wsi_ncmi.prediction import load_bundle, load_model
from wsi_ncmi.prediction.config import ExportConfig
from wsi_ncmi.training.bundle_signatures import KEY_VARIABLE
from wsi_ncmi.training.runs import read_run_predictions
from wsi_ncmi.workflows.export import export

CLASSES = ("negative", "tumour")


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed cohort of 24 slides of 12 patients."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(20, 60, 24)
    path = tmp_path_factory.mktemp("features") / "bags.npz"
    np.savez(
        path, features=rng.normal(size=(lengths.sum(), WIDTH)).astype(np.float16), lengths=lengths.astype(np.int32),
        label=np.array([CLASSES[i % 2] for i in range(24)]), slide_id=np.array([f"s{i:02d}" for i in range(24)]),
        case_id=np.array([f"p{i // 2:02d}" for i in range(24)]),
    )  # fmt: skip
    return path


def tables(run: Path) -> None:
    """What a training leaves beside the models."""
    for fold in range(2):
        rng = np.random.default_rng(fold)
        for name, part in (
            ("predictions.csv", range(fold, 24, 2)),
            ("validation.csv", range(1 - fold, 24, 4)),
        ):
            p = rng.uniform(size=len(part))
            frame = pd.DataFrame(
                {
                    "slide_id": [f"s{i:02d}" for i in part], "case_id": [f"p{i // 2:02d}" for i in part], "fold": fold, "seed": 0,
                    "label": [CLASSES[int(x < y)] for x, y in zip(rng.uniform(size=len(part)), p, strict=True)],
                    "prediction": [CLASSES[int(x > 0.5)] for x in p], "p_negative": 1 - p, "p_tumour": p, "centre": f"c{fold}",
                }
            )  # fmt: skip
            frame.to_csv(run / f"fold_{fold}" / "seed_0" / name, index=False)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = write_run(tmp_path / "runs" / "ncmi", width=WIDTH, classes=CLASSES)
    tables(folder)
    metrics = {"loss": "ce", "macro_f1": {"value": 0.1, "ci_low": 0.0, "ci_high": 0.2},
               "losses": {"ncmi": {"macro_f1": {"value": 0.77, "ci_low": 0.7, "ci_high": 0.8}}}}  # fmt: skip
    (tmp_path / "runs" / "metrics.json").write_text(json.dumps(metrics))
    return folder


def test_a_bundle_holds_what_the_run_knows(run: Path, features: Path, tmp_path: Path) -> None:
    result = export(
        ExportConfig(
            run=run, out=tmp_path / "model.zip", features=features, name="my model", version="2.1",
            torchscript=True,
        )
    )  # fmt: skip
    assert result.files["bundle"] == tmp_path / "model.zip"
    bundle = load_bundle(tmp_path / "model.zip")
    assert (bundle.name, bundle.version) == ("my model", "2.1")
    assert bundle.summary["cohort"]["slides"] == 24
    assert bundle.summary["cohort"]["patients"] == 12
    assert bundle.summary["cohort"]["centres"] == 2
    assert bundle.summary["metrics"]["macro_f1"]["value"] == 0.77  # of this loss, not of the first
    assert bundle.ood is not None
    assert bundle.ood.bounds.slides == 24
    source = open_bag_source(features)
    assert bundle.ood.bounds.least_tiles == source.lengths.min()
    assert bundle.calibration.slides == 12
    validation = pd.concat(
        [read_run_predictions(run / f"fold_{f}" / "seed_0" / "validation.csv") for f in (0, 1)]
    )
    calibrated = bundle.calibration.apply(validation[["p_negative", "p_tumour"]].to_numpy())
    assert (calibrated.max(1) >= bundle.calibration.abstain_below).sum() == 11  # 90 % of 12
    bag = source.load("s03")
    np.testing.assert_allclose(
        bundle.ensemble.predict(bag).probabilities,
        np.mean([m.predict(bag)[0] for m in bundle.ensemble.members], axis=0),
    )


def test_the_card_tells_it_too(
    run: Path, features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_record(run.parent / "run.json", config={}, hashes={"labels": "0a" * 32})
    monkeypatch.setenv(KEY_VARIABLE, str(tmp_path / "site.pub"))  # the bundle is signed only after its export
    export(
        ExportConfig(
            run=run,
            out=tmp_path / "model",
            features=features,
            version="2.1+b",
            intended_use="Node slides.",
            limits="None known.",
        )
    )
    card = (tmp_path / "model" / "MODEL_CARD.md").read_text()
    for words in (
        "Node slides.",
        "None known.",
        "0.770",
        "0.700 – 0.800",
        "24 out-of-fold test slides",
        "24 training slides",
        "| version | 2.1+b |",
        f"| hash of slides, patients and classes | {'0a' * 32} |",
    ):
        assert words in card, words
    assert str(tmp_path) not in card
    assert str(tmp_path) not in (tmp_path / "model" / "bundle.json").read_text()
    monkeypatch.delenv(KEY_VARIABLE)
    assert load_bundle(tmp_path / "model").cohort_sha256 == "0a" * 32


@pytest.mark.parametrize("version", ["../x", "1 2", "-1", "x" * 65])
def test_a_version_that_names_no_file_is_refused(version: str) -> None:
    with pytest.raises(ValidationError, match="version"):
        ExportConfig(run=Path("run"), out=Path("out"), version=version)


def test_the_card_of_a_leaking_run_says_so(run: Path, features: Path, tmp_path: Path) -> None:
    write_record(run.parent / "run.json", config={}, leaks=["Fold 0: Patient p is in train, test."])
    export(ExportConfig(run=run, out=tmp_path / "model", features=features))
    assert "This split LEAKS" in (tmp_path / "model" / "MODEL_CARD.md").read_text()


def test_a_threshold_can_be_given(run: Path, features: Path, tmp_path: Path) -> None:
    export(ExportConfig(run=run, out=tmp_path / "m", features=features, abstain_below=0.8))
    assert load_bundle(tmp_path / "m").calibration.abstain_below == 0.8
    export(ExportConfig(run=run, out=tmp_path / "n", features=features, coverage=1.0))
    assert load_bundle(tmp_path / "n").calibration.abstain_below == 0.0
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        ExportConfig(run=run, out=tmp_path / "o", features=features, abstain_below=8)


def test_without_validation_predictions_nothing_is_calibrated(tmp_path: Path) -> None:
    run = write_run(tmp_path / "imported", folds=1, width=WIDTH, classes=CLASSES)
    result = export(ExportConfig(run=run / "fold_0" / "seed_0", out=tmp_path / "m", reference=False))
    assert any("not calibrated" in note for note in result.notes)
    assert load_bundle(tmp_path / "m").calibration.temperature == 1.0
    with pytest.raises(InputError, match="without-reference"):
        export(ExportConfig(run=run / "fold_0" / "seed_0", out=tmp_path / "n"))


def test_features_that_are_missing_or_others_are_refused(run: Path, features: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--features"):
        export(ExportConfig(run=run, out=tmp_path / "m"))
    content = dict(np.load(features))
    content["slide_id"] = np.array([f"x{i:02d}" for i in range(24)])
    np.savez(tmp_path / "other.npz", **content)
    with pytest.raises(InputError, match=r"lacks 24 slides .*'s00'"):
        export(ExportConfig(run=run, out=tmp_path / "m", features=tmp_path / "other.npz"))
    assert not (tmp_path / "m").exists()


def trained_in(project: Path, run: Path, features: Path) -> None:
    """Lays a run and its features into a project, with the record that a training there would have left."""
    (project / "out" / "features").mkdir(parents=True)
    shutil.copy(features, project / "out" / "features" / "bags.npz")
    shutil.copytree(run.parent, project / "run")
    write_record(
        project / "run" / "run.json",
        config={"features": Path("out/features/bags.npz")},
        headline="ncmi",
        features_from_here=path_from(project / "run", project / "out" / "features" / "bags.npz"),
    )


def moved_together(project: Path) -> Path:
    return shutil.move(project, project.with_name("elsewhere")) / "run"


def moved_run(project: Path) -> Path:
    (project.parent / "far" / "away").mkdir(parents=True)
    return Path(shutil.move(project / "run", project.parent / "far" / "away" / "run"))


@pytest.mark.parametrize(
    ("change", "cwd"),
    [
        (lambda project: Path("run"), "project"),
        (lambda project: Path("../project/run/ncmi"), "project"),
        (lambda project: project / "run", "."),
        (lambda project: project / "run" / "ncmi" / "fold_0" / "seed_0", "."),
        (moved_together, "."),
        (moved_run, "project"),
    ],
    ids=["beside", "a loss", "from elsewhere", "one model", "project moved", "run moved"],
)
def test_features_of_the_training_are_found_again(
    run: Path, features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path], Path], cwd: str,
) -> None:  # fmt: skip
    trained_in(tmp_path / "project", run, features)
    target = change(tmp_path / "project")
    monkeypatch.chdir(tmp_path / cwd)
    result = export(ExportConfig(run=target, out=tmp_path / "m.zip"))
    assert any("bags.npz" in note for note in result.notes)
    ood = load_bundle(tmp_path / "m.zip").ood
    assert ood is not None
    assert ood.bounds.slides == (12 if target.name == "seed_0" else 24)


def test_features_that_are_gone_are_named(run: Path, features: Path, tmp_path: Path) -> None:
    trained_in(tmp_path / "project", run, features)
    (tmp_path / "project" / "out" / "features" / "bags.npz").unlink()
    with pytest.raises(InputError, match=r"\(out/features/bags.npz\) are neither .*--features"):
        export(ExportConfig(run=tmp_path / "project" / "run", out=tmp_path / "m"))


def test_a_run_of_several_losses_exports_its_headline_and_says_so(
    run: Path, features: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained_in(tmp_path / "project", run, features)
    whole = tmp_path / "project" / "run"
    write_run(whole / "ce", width=WIDTH, classes=CLASSES)  # first by name; the record says which is first
    result = export(ExportConfig(run=whole, out=tmp_path / "m"))
    assert "headline, ncmi" in result.notes[1]
    bundle = load_bundle(tmp_path / "m")
    assert bundle.name == "ncmi"
    assert bundle.summary["metrics"]["macro_f1"]["value"] == 0.77
    assert load_model(whole).name == "ncmi"
    assert "headline, ncmi" in caplog.text
    (whole / "run.json").unlink()
    with pytest.raises(InputError, match=r"several losses \(ce, ncmi\)"):
        export(ExportConfig(run=whole, out=tmp_path / "n"))


def test_nothing_is_written_over_unasked(run: Path, features: Path, tmp_path: Path) -> None:
    config = ExportConfig(run=run, out=tmp_path / "m", features=features)
    export(config)
    with pytest.raises(InputError, match="exists already"):
        export(config)
    export(replace(config, overwrite=True))
    shutil.rmtree(run)
    with pytest.raises(InputError, match="no trained model"):
        export(replace(config, overwrite=True))
    load_bundle(tmp_path / "m")  # what was there is still whole
