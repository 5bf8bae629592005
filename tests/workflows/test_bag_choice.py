"""Training on joined encoders and on bags of patients, from the configuration to the predictions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from wsi_ncmi.core.config import config_from
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.training import TrainConfig, load_trained, prepare_data
from wsi_ncmi.workflows import train

QUICK = {
    "losses": ["ce"], "split": {"folds": 2}, "training": {"epochs": 2, "device": "cpu"}, "workers": 1,
    "evaluation": {"resamples": 100, "figures": []},
}  # fmt: skip


def train_with(values, out, **more):
    return train(config_from(TrainConfig, {**values, "out": out, **more}, "the test"))


def cohort(path: Path, width: int, seed: int, label_of_last: str | None = None) -> Path:
    """16 patients with two slides each; the second file of a test has the same tiles."""
    lengths = np.random.default_rng(0).integers(2, 6, size=32)
    labels = np.array([("x", "y")[i // 2 % 2] for i in range(32)])
    if label_of_last:
        labels[-1] = label_of_last
    features = np.random.default_rng(seed).normal(size=(lengths.sum(), width))
    features[:, 0] += np.repeat(labels == "y", lengths)
    np.savez(
        path, features=features.astype(np.float16), lengths=lengths, label=labels,
        slide_id=np.array([f"s{i:02d}" for i in range(32)]),
        case_id=np.array([f"p{i // 2:02d}" for i in range(32)]),
    )  # fmt: skip
    return path


def test_two_encoders_and_bags_of_patients(tmp_path):
    a, b = cohort(tmp_path / "a.npz", 5, 1), cohort(tmp_path / "b.npz", 3, 2)
    values = {"features": a, "further_features": [b], "bag": "patient", **QUICK}
    result = train_with(values, tmp_path / "run")
    assert not result.failures
    table = pd.read_csv(result.files["predictions"], dtype=str)
    assert sorted(table["slide_id"]) == [f"p{i:02d}" for i in range(16)]
    assert (table["slide_id"] == table["case_id"]).all()
    model = load_trained(tmp_path / "run" / "fold_0" / "seed_0")
    assert model.aggregator.in_features == 8
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["config"]["bag"] == "patient"
    assert record["config"]["further_features"] == ["…/b.npz"]
    splits = json.loads(result.files["splits"].read_text())
    assert set(splits["folds"][0]["test"]) <= set(table["slide_id"])


def test_each_warning_is_logged_once_before_training(tmp_path, caplog):
    features, labels = cohort(tmp_path / "a.npz", 5, 1), tmp_path / "labels.csv"
    rows = [f"s{i:02d},{'Pp'[i % 2]}{i // 2:02d},{'xy'[i // 2 % 2]}" for i in range(32)]
    labels.write_text("\n".join(["slide_id,case_id,label", *rows]))
    data = prepare_data(
        config_from(
            TrainConfig, {"features": features, "labels": str(labels), "out": tmp_path / "run", **QUICK}, ""
        )
    )
    assert any("differ only in case" in text for text in data.warnings)
    assert any("few validation slides" in text for text in data.warnings)
    assert [record.getMessage() for record in caplog.records] == list(data.warnings)


def test_a_patient_of_two_labels_is_refused(tmp_path):
    path = cohort(tmp_path / "a.npz", 5, 1, label_of_last="x")
    with pytest.raises(InputError, match="'p15' have the labels 'x' and 'y'"):
        train_with({"features": path, "bag": "patient", **QUICK}, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_absent_further_features_are_named(tmp_path):
    path = cohort(tmp_path / "a.npz", 5, 1)
    values = {"features": path, "further_features": [tmp_path / "absent.npz"], **QUICK}
    with pytest.raises(InputError, match=r"absent\.npz do not exist"):
        train_with(values, tmp_path / "run")
