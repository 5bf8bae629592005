"""Image runs of version 0.1.0 are read and resumed.

``images_v0_1_0.zip`` was made by 0.1.0 (commit 2bc979b) with its ``job.yaml`` on 48 images of 8 × 8:

    python pipelines/image_classification.py job.yaml --out whole
    the same into cut, killed with SIGKILL in the third epoch of the second loss
"""

from __future__ import annotations

import contextlib
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from wsi_ncmi.core.config import read_config
from wsi_ncmi.vision import ImageJobConfig, load_classifier, run_images

TIMES = ["seconds", "images_per_s"]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    with zipfile.ZipFile(Path(__file__).with_name("images_v0_1_0.zip")) as archive:
        archive.extractall(tmp_path)
    return tmp_path


def run(folder: Path, name: str) -> None:
    with contextlib.chdir(folder):
        _, failures, notes = run_images(
            read_config(ImageJobConfig, Path("job.yaml"), flags={"out": Path(name)})
        )
    assert not failures
    assert not notes


def test_finished_image_runs_are_only_read(old: Path) -> None:
    before = {
        path: (path.stat().st_mtime_ns, path.read_bytes()) for path in (old / "whole").rglob("seed_0/*")
    }
    table, summary = ((old / "whole" / name).read_text() for name in ("runs.csv", "summary.json"))
    run(old, "whole")
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in before} == before
    assert (old / "whole" / "runs.csv").read_text() == table
    assert (old / "whole" / "summary.json").read_text() == summary


def test_an_image_run_that_was_killed_is_resumed(old: Path) -> None:
    cut, whole = old / "cut" / "ce" / "seed_0", old / "whole" / "ce" / "seed_0"
    assert (cut / "last.ckpt").is_file()
    run(old, "cut")
    assert not (cut / "last.ckpt").exists()
    found, wanted = (load_file(folder / "model.safetensors") for folder in (cut, whole))
    assert found.keys() == wanted.keys()
    run(old, "fresh")
    # Other processors round otherwise than the one that made the archive.
    fresh = load_file(old / "fresh" / "ce" / "seed_0" / "model.safetensors")
    if all(np.array_equal(fresh[name], tensor) for name, tensor in wanted.items()):
        assert (cut / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    for name, tensor in wanted.items():
        np.testing.assert_allclose(found[name], tensor, rtol=1e-2, atol=1e-3)
    curves = [pd.read_csv(folder / "curves.csv").drop(columns=TIMES) for folder in (cut, whole)]
    pd.testing.assert_frame_equal(*curves, rtol=1e-3)


@pytest.mark.parametrize("loss", ["ncmi", "ce"])
def test_old_classifiers_predict(old: Path, loss: str) -> None:
    folder = old / "whole" / loss / "seed_0"
    with np.load(old / "images.npz") as images:
        found = load_classifier(folder).predict(images["x_test"]).argmax(axis=1) == images["y_test"]
    assert found.mean() == pd.read_csv(folder / "curves.csv")["top1"].iloc[-1]
