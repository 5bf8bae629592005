"""Outputs of version 0.1.0 are read, continued and predicted with.

``v0_1_0.zip`` was made by 0.1.0 (commit 2bc979b) with these commands on twelve drawn slides of 512² pixels:

    wsi-ncmi extract slides --out out --encoder descriptor --tile-px 128
    wsi-ncmi compare --features out/features/descriptor --labels labels.csv --folds 2 --workers 1 --losses ncmi,ce
        --seeds 1 --epochs 3 --out run SETTINGS
    wsi-ncmi train … --loss ncmi --epochs 150 --out whole SETTINGS --set training.checkpoint_interval_s=0
    the same into cut, killed with SIGKILL in the second fold
    wsi-ncmi export run/ncmi --out bundle.zip --features out/features/descriptor
    wsi-ncmi predict slides/s1.svs --model bundle.zip --out pred --no-heatmaps
"""

from __future__ import annotations

import contextlib
import hashlib
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

from wsi_ncmi.cli.app import app

SETTINGS = [
    part
    for setting in (
        "model.hidden=8", "model.attention=4", "training.batch_size=4", "split.validation=0.25",
        "evaluation.resamples=100", "evaluation.figures=[]",
    )
    for part in ("--set", setting)
]  # fmt: skip
TRAIN = ["--features", "out/features/descriptor", "--labels", "labels.csv", "--folds", "2", "--workers", "1"]
LONG = ["--loss", "ncmi", "--epochs", "150", *SETTINGS, "--set", "training.checkpoint_interval_s=0"]


def wsi_ncmi(*arguments: str, cwd: Path) -> str:
    with contextlib.chdir(cwd):
        ended = CliRunner().invoke(app, arguments)
    assert ended.exit_code == 0, ended.output
    return ended.output


def digests(folder: Path, pattern: str) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob(pattern))
    }


def same_table(found: Path, expected: Path) -> None:
    pd.testing.assert_frame_equal(
        pd.read_csv(found, dtype={"slide_id": str}), pd.read_csv(expected), rtol=1e-4
    )


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("v0_1_0")
    with zipfile.ZipFile(Path(__file__).with_name("v0_1_0.zip")) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def same_arithmetic(old: Path) -> bool:
    """True if this machine computes 0.1.0's weights bit for bit; other processors round otherwise."""
    wsi_ncmi("train", *TRAIN, *LONG, "--out", "fresh", "--quiet", cwd=old)
    return digests(old / "fresh", "model.safetensors") == digests(old / "whole", "model.safetensors")


def test_features_are_whole_and_done_before(old: Path) -> None:
    before = digests(old / "out", "*.h5")
    assert len(before) == 12
    wsi_ncmi("verify", "out/features/descriptor", cwd=old)
    said = wsi_ncmi(
        "extract",
        "slides",
        "--out",
        "out",
        "--encoder",
        "descriptor",
        "--tile-px",
        "128",
        "--workers",
        "1",
        cwd=old,
    )
    assert "1 done before" in said
    assert digests(old / "out", "*.h5") == before


def test_a_finished_comparison_is_not_run_again(old: Path) -> None:
    before = digests(old / "run", "model.safetensors")
    changed = {path: path.stat().st_mtime_ns for path in (old / "run").rglob("model.safetensors")}
    predictions = (old / "run" / "predictions.csv").read_bytes()
    assert len(before) == 4
    wsi_ncmi(
        "compare",
        *TRAIN,
        "--losses",
        "ncmi,ce",
        "--seeds",
        "1",
        "--epochs",
        "3",
        "--out",
        "run",
        *SETTINGS,
        cwd=old,
    )
    assert digests(old / "run", "model.safetensors") == before
    assert {path: path.stat().st_mtime_ns for path in changed} == changed
    assert (old / "run" / "predictions.csv").read_bytes() == predictions


def test_a_run_that_was_killed_is_continued(old: Path, same_arithmetic: bool) -> None:
    assert (old / "cut" / "fold_1" / "seed_0" / "last.ckpt").is_file()
    finished = digests(old / "cut" / "fold_0", "model.safetensors")
    wsi_ncmi("train", *TRAIN, *LONG, "--out", "cut", "--quiet", cwd=old)
    assert digests(old / "cut" / "fold_0", "model.safetensors") == finished
    for fold in ("fold_0", "fold_1"):
        found, expected = (old / name / fold / "seed_0" for name in ("cut", "whole"))
        weights, wanted = (load_file(folder / "model.safetensors") for folder in (found, expected))
        assert weights.keys() == wanted.keys()
        for name, tensor in wanted.items():
            np.testing.assert_allclose(weights[name], tensor, rtol=1e-2, atol=1e-3)
        same_table(found / "predictions.csv", expected / "predictions.csv")
    if same_arithmetic:
        assert digests(old / "cut", "model.safetensors") == digests(old / "whole", "model.safetensors")
    assert not list((old / "cut").rglob("last.ckpt"))


@pytest.mark.parametrize("model", ["bundle.zip", "run/ncmi"])
def test_old_models_predict_as_before(old: Path, model: str, same_arithmetic: bool) -> None:
    out = f"pred_{model.replace('/', '_')}"
    wsi_ncmi("predict", "slides/s1.svs", "--model", model, "--out", out, "--no-heatmaps", "--quiet", cwd=old)
    if model == "bundle.zip":
        lines = (old / out / "predictions.csv").read_text().splitlines(keepends=True)
        assert lines[0].endswith(",shown,model_digest\n")  # since 0.2.0
        without = old / "without.csv"
        without.write_text("".join(line.rsplit(",", 2)[0] + "\n" for line in lines))
        same_table(without, old / "pred" / "predictions.csv")
        if same_arithmetic:
            assert without.read_bytes() == (old / "pred" / "predictions.csv").read_bytes()
    found, expected = (pd.read_csv(old / folder / "predictions.csv") for folder in (out, "pred"))
    assert found.prediction.tolist() == expected.prediction.tolist()


def test_old_features_are_trained_on(old: Path) -> None:
    wsi_ncmi("train", *TRAIN, "--model", "clam_sb", "--loss", "focal", "--epochs", "1", "--out", "new", *SETTINGS[:2],
             *SETTINGS[6:], cwd=old)  # fmt: skip
    assert len(pd.read_csv(old / "new" / "predictions.csv")) == 12
