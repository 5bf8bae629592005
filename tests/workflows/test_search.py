"""The search: a stated budget, inner validation alone, resumed, and the folds trained with what each found."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from wsi_ncmi.core.config import config_from, read_config
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.training import load_trained
from wsi_ncmi.training.search_space import Dimension, SearchConfig
from wsi_ncmi.workflows.search import search

SPACE = {
    "training.learning_rate": Dimension(low=1e-4, high=1e-2, log=True),
    "training.epochs": Dimension(low=1, high=3),
    "model.hidden": Dimension(choices=(8, 16)),
}


@pytest.fixture
def values(tmp_path):
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 6, size=40)
    labels = np.array([("x", "y")[i // 2 % 2] for i in range(40)])
    features = rng.normal(size=(lengths.sum(), 5))
    features[:, 0] += 0.7 * np.repeat(labels == "y", lengths)
    np.savez(
        tmp_path / "bags.npz", features=features.astype(np.float16), lengths=lengths, label=labels,
        slide_id=np.array([f"s{i:02d}" for i in range(40)]),
        case_id=np.array([f"p{i // 2:02d}" for i in range(40)]),
    )  # fmt: skip
    return {
        "features": tmp_path / "bags.npz", "losses": ["ce"], "split": {"folds": 2}, "workers": 1,
        "training": {"device": "cpu"}, "evaluation": {"resamples": 100, "figures": []},
    }  # fmt: skip


def config_of(values, out, **changes):
    content = {**values, "out": out, "space": SPACE, "trials": 4, **changes}
    return config_from(SearchConfig, content, "the test")


def test_budget_resume_and_nested_training(values, tmp_path):
    pytest.importorskip("optuna")
    cut = search(config_of(values, tmp_path / "cut", trials=2, minutes=0.0))
    assert cut.notes == ("0 of 4 trials are done; the same command resumes.",)
    assert "predictions" not in cut.files
    search(config_of(values, tmp_path / "cut", trials=2))
    result = search(config_of(values, tmp_path / "cut"))
    whole = search(config_of(values, tmp_path / "whole"))
    table = pd.read_csv(result.files["table"])
    assert table.groupby("fold").size().to_dict() == {0: 4, 1: 4}
    assert table["score"].between(0, 1).all()
    assert table["training.epochs"].isin([1, 2, 3]).all()
    assert table["model.hidden"].isin([8, 16]).all()
    # A search that was cut off and grew is the one that ran at once.
    pd.testing.assert_frame_equal(
        table.drop(columns="seconds"), pd.read_csv(whole.files["table"]).drop(columns="seconds")
    )
    assert result.files["predictions"].read_bytes() == whole.files["predictions"].read_bytes()
    content = json.loads(result.files["search"].read_text())
    assert (content["trials_a_fold"], content["trials"]) == (4, 8)
    for best in content["best"]:
        of_fold = table[table["fold"] == best["fold"]]
        assert best["score"] == of_fold["score"].max()
        config = load_trained(tmp_path / "cut" / "run" / f"fold_{best['fold']}" / "seed_0").config
        assert config["model"]["hidden"] == best["values"]["model.hidden"]
        assert config["training"]["learning_rate"] == best["values"]["training.learning_rate"]
        assert config["validation"]["val_macro_f1"] == pytest.approx(best["score"])
    predictions = pd.read_csv(result.files["predictions"])
    assert len(predictions) == 40
    assert sorted(predictions["fold"].unique()) == [0, 1]
    with pytest.raises(InputError, match="a budget that was spent can't shrink"):
        search(config_of(values, tmp_path / "cut", trials=3))
    with pytest.raises(InputError, match="another 'space'"):
        search(config_of(values, tmp_path / "cut", space={"model.hidden": Dimension(choices=(8,))}))


def test_the_test_part_is_not_at_hand(values, tmp_path, monkeypatch):
    pytest.importorskip("optuna")
    from wsi_ncmi.training.search import FoldSearch

    seen = []
    call = FoldSearch.__call__
    monkeypatch.setattr(
        FoldSearch, "__call__", lambda self, task, tell: seen.append(task) or call(self, task, tell)
    )
    search(config_of(values, tmp_path / "out", trials=1))
    assert [task.fold.test for task in seen] == [(), ()]
    assert all(task.fold.train and task.fold.validation for task in seen)


def test_a_setting_that_diverges_scores_nothing(values, tmp_path):
    pytest.importorskip("optuna")
    space = {"training.learning_rate": Dimension(choices=(1e-3, 1e30))}
    result = search(config_of(values, tmp_path / "out", trials=6, space=space))
    table = pd.read_csv(result.files["table"])
    lost = table["training.learning_rate"] > 1
    assert lost.any()
    assert (table["score"][lost] == 0).all()
    assert table["problem"][lost].str.contains("Training stopped at epoch").all()
    assert not result.failures


def test_without_optuna_it_is_said(values, tmp_path, without):
    without("optuna")
    with pytest.raises(InputError, match=r'needs optuna.*pip install "wsi-ncmi\[search\]"'):
        search(config_of(values, tmp_path / "out"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model.dropout: {low: 0.5, high: 0.1}", "is no range"),
        ("training.learning_rate: {low: 0.0, high: 0.1, log: true}", "is no range"),
        ("model.dropout: {low: 0.5, high: 1.5}", "less than 1"),
        ("model.droput: [0.1]", "did you mean 'dropout'"),
        ("features: [a, b]", "only model, training, losses can be searched"),
        ("{}", "is empty"),
        ("model.dropout: 3", "can't be read"),
        ("a: " + "[" * 50_000, "can't be read"),
        ("a: &a [" + "1," * 999 + "]\nb: [" + "*a," * 999 + "]", "more than 100,000 values"),
    ],
)
def test_wrong_spaces_are_refused(tmp_path, text, message):
    path = Path(tmp_path / "space.yaml")
    path.write_text(text)

    with pytest.raises(InputError, match=message):
        read_config(SearchConfig, flags={"losses": ["ce"], "space": str(path)}).checked()
