"""Encoders × models × losses × folds × seeds: one table, resumed, each cell what ``train`` leaves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from wsi_ncmi.core.config import config_from, read_config
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.training import SweepConfig, TrainConfig, data
from wsi_ncmi.training.runs import RUN_JSON
from wsi_ncmi.workflows import train
from wsi_ncmi.workflows.sweep import named_features, settings_of_models, sweep

QUICK = {
    "losses": ["ce", "ncmi"], "split": {"folds": 2}, "training": {"epochs": 2, "device": "cpu"},
    "seeds": 2, "workers": 1, "evaluation": {"resamples": 100, "figures": []},
}  # fmt: skip


def swept(features, models, values, out, overrides=()):
    values = {**values, "encoders": named_features(features), "models": models, "out": out}
    return sweep(read_config(SweepConfig, flags=values, overrides=settings_of_models(models, overrides)))


def cohort(path: Path, width: int, seed: int) -> Path:
    lengths = np.random.default_rng(0).integers(2, 6, size=32)
    labels = np.array([("x", "y")[i // 2 % 2] for i in range(32)])
    features = np.random.default_rng(seed).normal(size=(lengths.sum(), width))
    np.savez(
        path, features=features.astype(np.float16), lengths=lengths, label=labels,
        slide_id=np.array([f"s{i:02d}" for i in range(32)]),
        case_id=np.array([f"p{i // 2:02d}" for i in range(32)]),
    )  # fmt: skip
    return path


@pytest.fixture
def encoders(tmp_path):
    return [cohort(tmp_path / "a.npz", 5, 1), cohort(tmp_path / "b.npz", 3, 2)]


def test_a_grid_is_trained_grows_and_equals_train(encoders, tmp_path):
    a, b = encoders
    out = tmp_path / "grid"
    first = swept([str(a)], ["mean"], QUICK, out)
    stamps = {
        path: path.stat().st_mtime_ns for path in out.rglob(RUN_JSON) if path.parent.name.startswith("seed_")
    }
    assert len(stamps) == 2 * 2 * 2
    assert len(pd.read_csv(first.files["table"])) == 8
    result = swept([str(a), f"both={a}+{b}"], ["mean", "max"], QUICK, out)
    assert not result.failures
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    table = pd.read_csv(result.files["table"])
    assert len(table) == 2 * 2 * 2 * 2 * 2
    assert not table.duplicated(["encoder", "model", "loss", "fold", "seed"]).any()
    assert table["macro_f1"].between(0, 1).all()
    cells = json.loads(result.files["summary"].read_text())["cells"]
    assert [(c["encoder"], c["model"], c["loss"]) for c in cells] == [
        (e, m, loss) for e in ("a", "both") for m in ("mean", "max") for loss in ("ce", "ncmi")
    ]
    assert result.files["overview"].read_text().count("\n") == 2 + 8
    values = {"features": a, "further_features": [b], "model": {"name": "max"}, **QUICK}
    train(config_from(TrainConfig, {**values, "out": tmp_path / "alone"}, "the test"))
    for name in ("predictions.csv", "fold_1/seed_1/model.safetensors"):
        alone = tmp_path / "alone" / "ncmi" / name
        assert (out / "both" / "max" / "ncmi" / name).read_bytes() == alone.read_bytes()


def test_features_are_opened_split_and_audited_once_an_encoder(encoders, tmp_path, monkeypatch):
    counts = dict.fromkeys(("open_bag_source", "make_splits", "find_leaks"), 0)
    for name in counts:
        function = getattr(data, name)

        def counted(*args, name=name, function=function, **more):
            counts[name] += 1
            return function(*args, **more)

        monkeypatch.setattr(data, name, counted)
    swept(
        list(map(str, encoders)), ["mean", "max"], {**QUICK, "losses": ["ce"], "seeds": 1}, tmp_path / "grid"
    )
    assert counts == {"open_bag_source": 2, "make_splits": 2, "find_leaks": 2}


def test_two_processes_give_the_same_bits(encoders, tmp_path):
    values = {**QUICK, "losses": ["ce"], "seeds": 1, "split": {"folds": 2}}
    for workers in (1, 2):
        out = tmp_path / str(workers)
        assert not swept([str(encoders[0])], ["mean", "max"], {**values, "workers": workers}, out).failures
    one, two = (sorted((tmp_path / n).rglob("*.safetensors")) for n in ("1", "2"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    assert len(one) == 4


@pytest.mark.parametrize(
    ("features", "models", "message"),
    [
        (["a", "a"], ["mean"], "same name"),
        (["a", "absent=no.npz"], ["mean"], r"no\.npz do not exist"),
        (["a"], ["maen"], "did you mean 'mean'"),
    ],
)
def test_wrong_grids_are_refused_before_anything_starts(encoders, tmp_path, features, models, message):
    given = [str(encoders[0]) if text == "a" else text for text in features]
    with pytest.raises(InputError, match=message):
        swept(given, models, QUICK, tmp_path / "grid")
    assert not (tmp_path / "grid").exists()
