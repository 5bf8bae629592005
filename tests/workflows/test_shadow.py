"""Shadow mode: a second model predicts beside the first, and nothing of the answers knows of it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.prediction.models import export, make_bundle, write_model, write_run
from tests.workflows.conftest import GRID, WIDTH
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.extraction.config import ExecutionConfig
from wsi_ncmi.features import open_features_file
from wsi_ncmi.prediction import load_bundle, shadow
from wsi_ncmi.prediction.calibration import Calibration
from wsi_ncmi.prediction.config import PredictConfig
from wsi_ncmi.prediction.shadow import Shadow
from wsi_ncmi.prediction.slide_records import SlideRecords
from wsi_ncmi.training.config import EvaluateConfig, EvaluationConfig
from wsi_ncmi.workflows import evaluate
from wsi_ncmi.workflows.predict import Predictor, predict
from wsi_ncmi.workflows.result import JobResult

CLASSES = ("negative", "tumour")


def rows(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as handle:
        return {row["slide_id"]: row for row in csv.DictReader(handle)}


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model of the same features, which always decides."""
    root = tmp_path_factory.mktemp("second")
    write_model(root / "run" / "fold_0" / "seed_0", 7, CLASSES, WIDTH, **GRID)
    made = make_bundle(root / "run", reference=False, calibration=Calibration(1.0, 0.0, "no slides", 0))
    return export(replace(made, version="2.2"), root / "run", root / "second.zip")


@pytest.fixture(scope="module")
def config(
    small_slides: Path, small_bundle: Path, second: Path, tmp_path_factory: pytest.TempPathFactory
) -> PredictConfig:
    return PredictConfig(
        slides=small_slides, model=small_bundle, out=tmp_path_factory.mktemp("out") / "out", heatmaps=False,
        geojson=False, extraction=ExecutionConfig(workers=1), shadow=second,
    )  # fmt: skip


@pytest.fixture(scope="module")
def done(config: PredictConfig) -> JobResult:
    return predict(config)


@pytest.fixture
def again(config: PredictConfig, done: JobResult) -> Callable[[], str]:
    """The shadow's part of a further run, and what it says."""

    def run() -> str:
        first = load_bundle(config.model)
        features, slides = done.files["features"], done.files["slides"]
        records = SlideRecords(first, config, features=features, slides=slides, timed=lambda _: nullcontext())
        answers = [records.predict(slide_id)[0] for slide_id in ("empty", "s0", "s1")]
        return Shadow(config, first).predict(records, answers)

    return run


def test_the_answers_are_the_first_models_and_the_shadows_stand_apart(
    config: PredictConfig, done: JobResult
) -> None:
    assert config.shadow is not None
    first, second = load_bundle(config.model), load_bundle(config.shadow)
    assert done.files["shadow"] == config.out / "shadow" / f"run-{second.digest[:12]}.csv"
    mine, theirs = rows(config.out / "predictions.csv"), rows(done.files["shadow"])
    assert (sorted(mine), sorted(theirs)) == (["empty", "s0", "s1"], ["s0", "s1"])
    for slide_id, row in theirs.items():
        file = open_features_file(config.out / "features" / "descriptor" / f"{slide_id}.h5")
        for bundle, found in ((first, mine[slide_id]), (second, row)):
            expected = bundle.predict(file.features).probabilities
            np.testing.assert_allclose([float(found[f"p_{name}"]) for name in CLASSES], expected, rtol=1e-9)
        assert row["decision"] == row["prediction"] == CLASSES[int(expected.argmax())]
        assert row["features"] == file.attrs["sha256"]
        assert second.digest not in (config.out / "slides" / f"{slide_id}.json").read_text()
    otherwise = sum(mine[slide_id]["decision"] != row["decision"] for slide_id, row in theirs.items())
    assert f"Shadow model run 2.2: 2 slides, {otherwise} decided otherwise." in done.notes
    for path in ("predictions.json", "report.html"):
        assert second.digest not in (config.out / path).read_text()


def test_what_is_known_is_kept_and_what_has_other_features_is_predicted_again(
    done: JobResult, again: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    original = shadow.predict_slide
    monkeypatch.setattr(shadow, "predict_slide", lambda *given: asked.append(given[1]) or original(*given))
    table = done.files["shadow"]
    content = table.read_text()
    assert again() in done.notes
    assert not asked
    assert table.read_text() == content
    table.write_text(content.replace(rows(table)["s1"]["features"], "0" * 64))
    again()
    assert asked == ["s1"]
    assert table.read_text() == content
    table.write_text("cut off\n1")
    again()
    assert table.read_text() == content


def test_a_fault_of_the_shadow_is_a_row_and_the_answers_go_out(
    done: JobResult, again: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("no memory")

    table = done.files["shadow"]
    content = table.read_text()
    table.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(shadow, "predict_slide", fails)
        again()
    assert {row["reason"] for row in rows(table).values()} == {"no memory"}
    again()
    assert table.read_text() == content


def test_both_are_compared_by_evaluate(done: JobResult, tmp_path: Path) -> None:
    result = done
    labels = tmp_path / "labels.csv"
    labels.write_text("slide_id,case_id,label\ns0,p0,negative\ns1,p1,tumour\n")
    found = evaluate(
        EvaluateConfig(
            predictions=result.files["predictions"], out=tmp_path / "out", labels=str(labels),
            against=(result.files["shadow"],), evaluation=EvaluationConfig(resamples=100, figures=()),
        )
    )  # fmt: skip
    difference = json.loads(found.files["differences"].read_text())["differences"][0]
    assert difference["b"] == result.files["shadow"].name
    truth = {"s0": "negative", "s1": "tumour"}
    right = [
        {slide for slide, row in rows(result.files[name]).items() if row["prediction"] == truth.get(slide)}
        for name in ("predictions", "shadow")
    ]
    assert (difference["only_a"], difference["only_b"]) == (
        len(right[0] - right[1]),
        len(right[1] - right[0]),
    )


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ({"tile_px": 32}, "another tile px"),
        ({"encoder_weights_sha256": "0a"}, "another encoder weights sha256"),
        ({"min_tissue": 0.5}, "another kind"),
    ],
)
def test_a_model_of_other_features_is_refused_at_once(
    config: PredictConfig, tmp_path: Path, features: dict[str, object], words: str
) -> None:
    run = write_run(tmp_path / "run", folds=1, width=WIDTH, classes=CLASSES, **{**GRID, **features})
    with pytest.raises(InputError, match=words):
        Predictor(replace(config, shadow=run))
