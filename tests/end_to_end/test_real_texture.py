"""Slides made of real lung tiles: from pyramidal files to subtypes of unseen source tiles."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from wsi_ncmi.cli.app import app
from wsi_ncmi.synthesis import write_pyramid

pytestmark = [pytest.mark.real_data, pytest.mark.slow]

PATIENTS_A_CLASS, SOURCES_A_PATIENT, COLUMNS, TILE_PX = 12, 8, 4, 224


@pytest.fixture(scope="module")
def cohort(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slides of 16 tiles each; a patient is a group of source tiles, so no source is in two patients."""
    root = tmp_path_factory.mktemp("texture")
    (root / "slides").mkdir()
    sources: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    with (real_data / "tiles" / "tiles.csv").open(newline="") as handle:
        for row in csv.DictReader(handle):
            sources[row["label"]][row["source_id"]].append(row["file"])
    lines = ["slide_id,label,case_id"]
    for label, by_source in sorted(sources.items()):
        order = np.random.default_rng(0).permutation(sorted(by_source))
        for patient in range(PATIENTS_A_CLASS):
            mine = order[patient * SOURCES_A_PATIENT : (patient + 1) * SOURCES_A_PATIENT]
            files = [file for source in mine for file in by_source[source]]
            tiles = [np.asarray(Image.open(real_data / "tiles" / file).convert("RGB")) for file in files]
            pixels = np.vstack([np.hstack(tiles[i : i + COLUMNS]) for i in range(0, len(tiles), COLUMNS)])
            name = f"{label}_{patient:02d}"
            write_pyramid(root / "slides" / f"{name}.svs", np.ascontiguousarray(pixels), 0.5, quality=95)
            lines.append(f"{name},{label},{name}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.mark.parametrize(("encoder", "least"), [("torchvision:squeezenet1_1", 0.85), ("descriptor", 0.55)])
def test_subtypes_of_unseen_sources(cohort: Path, real_data: Path, encoder: str, least: float) -> None:
    out = cohort / encoder.partition(":")[0]
    weights = ("--weights", str(real_data / "encoders")) if ":" in encoder else ()
    extracted = CliRunner().invoke(
        app,
        ["extract", str(cohort / "slides"), "--out", str(out), "--encoder", encoder, *weights, "--mpp", "0.5",
         "--tile-px", str(TILE_PX), "--min-tissue", "0.02", "--workers", "1", "--quiet"],
    )  # fmt: skip
    assert extracted.exit_code == 0, extracted.stderr
    trained = CliRunner().invoke(
        app,
        ["train", "--features", str(out), "--labels", str(cohort / "labels.csv"), "--out", str(out / "run"),
         "--loss", "ncmi", "--folds", "3", "--workers", "1", "--quiet", "--set", "evaluation.figures=[]",
         "--set", "evaluation.resamples=100"],
    )  # fmt: skip
    assert trained.exit_code == 0, trained.stderr
    metrics = json.loads((out / "run" / "metrics.json").read_text())
    assert metrics["n_slides"] == 3 * PATIENTS_A_CLASS
    assert metrics["macro_f1"]["value"] >= least
    if weights:
        predict_the_real_slide(out, real_data)


def predict_the_real_slide(out: Path, real_data: Path) -> None:
    """The bundle of this run on an Aperio slide of skin: an answer, and that it is unlike lung tiles."""
    bundle = out / "lung.zip"
    exported = CliRunner().invoke(app, ["export", str(out / "run"), "--out", str(bundle), "--quiet"])
    assert exported.exit_code == 0, exported.stderr
    arguments = ["predict", str(real_data / "slides" / "CMU-1-Small-Region.svs"), "--model", str(bundle),
                 "--out", str(out / "real"), "--workers", "1", "--quiet"]  # fmt: skip
    missing = CliRunner().invoke(app, arguments)
    assert missing.exit_code == 2  # the bundle names the encoder's weights, it does not carry them
    assert "weights" in missing.stderr
    predicted = CliRunner().invoke(app, [*arguments, "--weights", str(real_data / "encoders")])
    assert predicted.exit_code == 0, predicted.stderr
    with (out / "real" / "predictions.csv").open(newline="") as handle:
        (row,) = csv.DictReader(handle)
    assert int(row["tiles"]) >= 40
    assert row["prediction"] in ("lung_aca", "lung_n", "lung_scc")
    assert row["decision"] == "abstain"
    assert "features" in row["ood"].split(";")
    assert (out / "real" / "slides" / "CMU-1-Small-Region.html").is_file()
    seconds = json.loads((out / "real" / "predict.json").read_text())["seconds"]
    assert set(seconds) == {"model", "extraction", "prediction", "heatmaps", "tables and pages"}
