"""CSV, PNG and SVG beside the report."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from wsi_ncmi.metrics import compare_paired
from wsi_ncmi.reporting import FlowStep, write_outputs
from wsi_ncmi.reporting.figures import report_figures
from wsi_ncmi.reporting.figures.static import draw_figure


@pytest.fixture(scope="module")
def written(make, tmp_path_factory):
    frame = make.predictions(classes=("a & b", "c", "d"))
    counts = [
        {part: {"slides": 10 + k, "patients": 5} for part in ("train", "validation", "test")}
        for k in range(3)
    ]
    data = make.report_input(
        frame,
        curves=make.curves(),
        comparisons={"ce": compare_paired(frame, frame, ("a & b", "c", "d"), resamples=50)},
        flow=(FlowStep("slides found", 50), FlowStep("used", 48, 24, {"no tissue": 2})),
        splits={"counts": counts},
    )
    folder = tmp_path_factory.mktemp("run")
    return data, folder, write_outputs(data, folder)


def test_every_table_is_there_and_holds_the_evaluation(written):
    data, folder, files = written
    assert files["tables"] == folder / "tables"
    tables = {path.stem: pd.read_csv(path, keep_default_na=False) for path in files["tables"].glob("*.csv")}
    figures = {"calibration", "roc", "pr", "selective", "learning-f1", "learning-loss", "information"}
    assert set(tables) == {
        "metrics", "classes", "centres", "spread", "confusion", "operating_points", "abstention", "comparisons",
        "slides", "cohort_flow", *(f"figure_{key}" for key in figures),
    }  # fmt: skip
    found = tables["metrics"].set_index("metric")
    for name, estimate in data.headline.metrics.items():
        assert float(found.loc[name, "value"] or "nan") == pytest.approx(estimate.value, abs=0, nan_ok=True)
    assert float(found.loc["macro_f1", "bca_low"]) == data.headline.metrics["macro_f1"].bca_low
    assert tables["confusion"]["slides"].to_numpy().reshape(3, 3).tolist() == data.headline.confusion.tolist()
    assert set(tables["classes"]["class"]) == {"a & b", "c", "d"}
    assert len(tables["slides"]) == data.headline.n_slides
    assert tables["cohort_flow"]["slides"].tolist()[:3] == [50, 48, -2]
    assert len(tables["cohort_flow"]) == 3 + 9
    roc = tables["figure_roc"]
    assert any(name.startswith("a & b (") for name in roc["name"])  # not escaped for a browser
    assert set(roc["kind"]) == {"line", "band"}


def test_figures_are_pictures_of_both_kinds(written):
    _, folder, files = written
    names = {path.stem for path in files["figures"].iterdir()}
    assert names == {
        "calibration", "roc", "pr", "selective", "learning-f1", "learning-loss", "information", "confusion",
    }  # fmt: skip
    for name in names:
        with Image.open(folder / "figures" / f"{name}.png") as picture:
            pixels = np.asarray(picture.convert("L"))
        assert pixels.shape[0] > 400
        assert pixels.std() > 10
        svg = (folder / "figures" / f"{name}.svg").read_text(encoding="utf-8")
        assert svg.lstrip().startswith("<?xml")
    assert "True-positive rate (sensitivity)" in (folder / "figures" / "roc.svg").read_text()
    assert "a &amp; b (" in (folder / "figures" / "roc.svg").read_text()


def test_the_same_run_gives_the_same_bytes(written, tmp_path):
    data, folder, _ = written
    again = report_figures(data.predictions, data.headline, None, data.evaluations)["calibration"][0]
    for kind, content in draw_figure(again).items():
        assert content == (folder / "figures" / f"calibration.{kind}").read_bytes()
    write_outputs(data, tmp_path, ())
    for path in (*folder.glob("*.*"), *folder.glob("tables/*")):
        assert path.read_bytes() == (tmp_path / path.relative_to(folder)).read_bytes(), path.name


def test_figures_can_be_left_out(make, tmp_path):
    data = make.report_input(make.predictions(centre=False, seeds=1))
    files = write_outputs(data, tmp_path, ())
    assert "figures" not in files
    assert not (tmp_path / "figures").exists()
    assert not (tmp_path / "tables" / "centres.csv").exists()
    assert sorted(files) == ["report", "summary", "tables"]
