"""The prediction job: files, refusals, resumption, patients."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.prediction.models import write_run
from tests.workflows.conftest import tissue
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.encoders import Encoder, EncoderConfig
from wsi_ncmi.extraction.config import ExecutionConfig
from wsi_ncmi.extraction.execution import worker
from wsi_ncmi.features import open_features_file
from wsi_ncmi.prediction import load_bundle
from wsi_ncmi.prediction.config import PredictConfig
from wsi_ncmi.synthesis import write_pyramid
from wsi_ncmi.workflows.predict import predict

ONE = ExecutionConfig(workers=1)


def rows(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as handle:
        table = list(csv.DictReader(handle))
    return {row[next(iter(row))]: row for row in table}


@pytest.fixture(scope="module")
def config(small_slides: Path, small_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> PredictConfig:
    out = tmp_path_factory.mktemp("out")
    cases = out / "cases.csv"
    cases.write_text("slide_id,case_id\ns0.svs,p1\ns1,p1\nempty,p2\n")
    return PredictConfig(
        slides=small_slides, model=small_bundle, out=out / "predictions", extraction=ONE, cases=cases,
        abstain_below=0.0, top=4,
    )  # fmt: skip


@pytest.fixture(scope="module")
def done(config: PredictConfig) -> Path:
    result = predict(config)
    assert result.exit_code == 0, result.failures
    return config.out


def test_every_slide_has_a_row_and_the_answer_is_the_bundles(done: Path, small_bundle: Path) -> None:
    table = rows(done / "predictions.csv")
    assert sorted(table) == ["empty", "s0", "s1"]
    assert "no tissue" in table["empty"]["reason"]
    bundle = load_bundle(small_bundle)
    for slide_id in ("s0", "s1"):
        features = open_features_file(done / "features" / "descriptor" / f"{slide_id}.h5").features
        expected = bundle.predict(features).probabilities
        found = [float(table[slide_id][f"p_{name}"]) for name in bundle.classes]
        np.testing.assert_allclose(found, expected, rtol=1e-9)
        assert (
            table[slide_id]["decision"]
            == table[slide_id]["prediction"]
            == bundle.classes[int(expected.argmax())]
        )


def test_patients(done: Path) -> None:
    table, slides = rows(done / "patients.csv"), rows(done / "predictions.csv")
    assert sorted(table) == ["p1", "p2"]
    mean = np.mean([float(slides[s]["p_tumour"]) for s in ("s0", "s1")])
    assert float(table["p1"]["p_tumour"]) == pytest.approx(mean)
    assert table["p2"]["prediction"] == ""
    assert slides["s0"]["case_id"] == "p1"


def test_json_pages_heatmaps_and_geojson(done: Path) -> None:
    content = json.loads((done / "predictions.json").read_text())
    assert content["schema"] == "wsi-ncmi-predictions/1"
    assert [s["slide_id"] for s in content["slides"]] == ["empty", "s0", "s1"]
    assert {p["case_id"] for p in content["patients"]} == {"p1", "p2"}
    for slide_id in ("s0", "s1"):
        answer = next(s for s in content["slides"] if s["slide_id"] == slide_id)
        page = (done / "slides" / f"{slide_id}.html").read_text()
        assert page.count("data:image/png;base64") == 2
        assert page.count("data:image/jpeg;base64") == 1
        assert answer["decision"] in page
        features = json.loads((done / "attention" / f"{slide_id}.geojson").read_text())["features"]
        assert len(features) == answer["tiles"]
        told = [f["properties"]["measurements"]["attention"] for f in features]
        assert sum(told) == pytest.approx(1, abs=1e-4)
    report = (done / "report.html").read_text()
    assert "slides/s0.html" in report
    assert "For research use" in report
    assert not list((done / "heatmaps").glob("empty*"))


def test_no_output_names_a_folder_of_this_machine(done: Path) -> None:
    here = re.escape(str(done.parent.parent))
    for path in done.rglob("*"):
        if path.is_file():
            assert not re.search(here, path.read_bytes().decode("latin-1")), path.name


def test_the_same_command_again_makes_nothing_twice(config: PredictConfig, done: Path) -> None:
    kept = [
        *done.glob("slides/*"),
        *done.glob("heatmaps/*"),
        *done.glob("attention/*"),
        *done.glob("features/*/*.h5"),
    ]
    before = {path: path.stat().st_mtime_ns for path in kept}
    table = (done / "predictions.csv").read_bytes()
    predict(config)
    assert {path: path.stat().st_mtime_ns for path in kept} == before
    assert (done / "predictions.csv").read_bytes() == table
    (done / "heatmaps" / "s0_attention_percentile.png").unlink()  # what is missing is made again
    predict(config)
    assert (done / "heatmaps" / "s0_attention_percentile.png").is_file()
    # Another rule is another answer; the features are reused.
    predict(replace(config, abstain_below=1.0))
    assert rows(done / "predictions.csv")["s0"]["decision"] == "abstain"
    assert all(path.stat().st_mtime_ns == before[path] for path in done.glob("features/*/*.h5"))
    predict(config)


@pytest.mark.parametrize(("timeout_s", "loads_here"), [(None, 1), (100.0, 0)])
def test_the_encoder_is_loaded_once_and_not_here_where_other_processes_work(
    config: PredictConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, timeout_s: float | None,
    loads_here: int,
) -> None:  # fmt: skip
    loads: list[str] = []
    load = worker.load_encoder

    def counted(options: EncoderConfig) -> Encoder:
        loads.append(options.name)
        return load(options)

    monkeypatch.setattr(worker, "load_encoder", counted)
    execution = ExecutionConfig(workers=1, timeout_per_slide=timeout_s)
    result = predict(replace(config, out=tmp_path, extraction=execution, heatmaps=False))
    assert result.exit_code == 0
    assert len(loads) == loads_here


def test_a_cache_of_an_extraction_is_reused(config: PredictConfig, done: Path, tmp_path: Path) -> None:
    files = {p: p.stat().st_mtime_ns for p in done.glob("features/*/*.h5")}
    predict(replace(config, out=tmp_path / "elsewhere", cache=done, heatmaps=False))
    assert (tmp_path / "elsewhere" / "predictions.csv").read_bytes() == (
        done / "predictions.csv"
    ).read_bytes()
    assert not (tmp_path / "elsewhere" / "features").exists()
    assert not list((tmp_path / "elsewhere" / "heatmaps").iterdir())
    assert {p: p.stat().st_mtime_ns for p in files} == files


def test_a_bad_slide_costs_only_itself(config: PredictConfig, tmp_path: Path, small_slides: Path) -> None:
    slides = tmp_path / "slides"
    slides.mkdir()
    shutil.copy(small_slides / "s0.svs", slides)
    (slides / "note.svs").write_text("no slide")
    result = predict(replace(config, slides=slides, out=tmp_path / "out", cases=None))
    assert result.exit_code == 1
    assert any("note" in failure for failure in result.failures)
    table = rows(tmp_path / "out" / "predictions.csv")
    assert table["note"]["prediction"] == ""
    assert table["s0"]["prediction"]
    assert not (tmp_path / "out" / "patients.csv").exists()


def test_only_bad_slides_end_with_a_table_all_the_same(config: PredictConfig, tmp_path: Path) -> None:
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides" / "note.svs").write_text("no slide")
    result = predict(replace(config, slides=tmp_path / "slides", out=tmp_path / "out", cases=None))
    assert result.exit_code == 1
    assert list(rows(tmp_path / "out" / "predictions.csv")) == ["note"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"encoder_weights_sha256": "ab" * 32}, "encoder_weights_sha256"),
        ({"transform": "descriptor 0"}, "transform"),
        ({"mpp_target": None}, "does not say which mpp_target"),
        ({"tile_px": "many"}, "tile_px"),
        ({"tissue_parameters": "{"}, "tissue settings"),
    ],
)
def test_another_encoder_grid_or_transform_is_refused(
    config: PredictConfig, tmp_path: Path, changed: dict[str, object], words: str
) -> None:
    run = write_run(tmp_path / "run", folds=1, width=229, **{"tile_px": 64, **changed})
    with pytest.raises(InputError, match=words):
        predict(replace(config, model=run, out=tmp_path / "out"))
    assert not (tmp_path / "out" / "features").exists()


def test_a_cache_of_another_resolution_is_refused(config: PredictConfig, done: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", folds=1, width=229, tile_px=64, mpp_target=1.0)
    with pytest.raises(InputError, match=r"0\.5 there, 1\.0 here"):
        predict(replace(config, model=run, out=tmp_path / "out", cache=done))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("slide_id\ns0\n", "case_id"),
        ("slide_id,case_id\ns0,\n", "row 2"),
        ("slide_id,case_id\ns0,a\ns0.svs,b\n", "two patients"),
    ],
)
def test_wrong_cases_are_refused(config: PredictConfig, tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "cases.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        predict(replace(config, cases=tmp_path / "cases.csv", out=tmp_path / "out"))


def test_the_colour_of_the_tissue_is_measured(done: Path) -> None:
    found = json.loads(open_features_file(done / "features" / "descriptor" / "s0.h5").attrs["tissue_found"])[
        "colour"
    ]
    inside = tissue(0)[200:300, 250:400].reshape(-1, 3).astype(float)
    od = np.log(240) - np.log(inside + 1)
    assert found["density"] == pytest.approx(np.median(od.mean(1)), rel=0.15)
    assert found["cx"] == pytest.approx(np.median(od[:, 0] / od.mean(1) - 1), abs=0.05)
    empty = json.loads(
        open_features_file(done / "features" / "descriptor" / "empty.h5").attrs["tissue_found"]
    )
    assert "colour" not in empty


def test_a_slide_of_another_name_is_written_safely(config: PredictConfig, tmp_path: Path) -> None:
    (tmp_path / "slides").mkdir()
    write_pyramid(tmp_path / "slides" / "a <b> & 'c'.svs", tissue(3), 0.5)
    result = predict(replace(config, slides=tmp_path / "slides", out=tmp_path / "out", cases=None))
    assert result.exit_code == 0
    report = (tmp_path / "out" / "report.html").read_text()
    assert "<b>" not in report
    assert "a%20%3Cb%3E%20%26%20%27c%27.html" in report
