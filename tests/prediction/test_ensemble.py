"""Ensembles: what is loaded, what is refused, and that the mean is the mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.prediction.models import FEATURES, write_model, write_run
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.prediction import check_features, load_ensemble


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run")


def bag(tiles: int = 5) -> np.ndarray:
    return np.random.default_rng(tiles).normal(size=(tiles, 6)).astype("float16")


def test_the_ensemble_is_the_mean_of_its_members(run: Path) -> None:
    ensemble = load_ensemble(run)
    answer = ensemble.predict(bag())
    each = np.stack([member.predict(bag())[0] for member in ensemble.members])
    assert len(each) == 2
    np.testing.assert_allclose(answer.probabilities, each.mean(axis=0), rtol=1e-12)
    assert answer.attention.sum() == pytest.approx(1, abs=1e-5)
    single = load_ensemble(run / "fold_1" / "seed_0")
    np.testing.assert_array_equal(single.predict(bag()).probabilities, each[1])


def test_a_tiles_evidence_is_the_answer_for_a_slide_of_this_tile_alone(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensemble = load_ensemble(run)
    monkeypatch.setattr("wsi_ncmi.training.checkpoint._TILES_AT_ONCE", 4)  # 9 tiles in three parts
    found = ensemble.tile_probabilities(bag(9))
    alone = [ensemble.predict(bag(9)[i : i + 1]).probabilities for i in range(9)]
    np.testing.assert_allclose(found, alone, rtol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-12)


def test_several_losses_must_be_told_apart(tmp_path: Path) -> None:
    for loss in ("ce", "ncmi"):
        write_model(tmp_path / loss / "fold_0" / "seed_0", 0)
    with pytest.raises(InputError, match=r"several losses \(ce, ncmi\)"):
        load_ensemble(tmp_path)
    assert len(load_ensemble(tmp_path / "ce").members) == 1


def test_no_model_and_models_of_different_tasks_are_refused(tmp_path: Path, run: Path) -> None:
    with pytest.raises(InputError, match="no trained model"):
        load_ensemble(tmp_path / "nothing")
    write_model(run / "fold_2" / "seed_0", 2, classes=("a", "c"))
    with pytest.raises(InputError, match="other classes or features"):
        load_ensemble(run)


@pytest.mark.parametrize(
    ("key", "value"), [("encoder", "timm:resnet18"), ("mpp_target", 1.0), ("tile_px", 512)]
)
def test_other_features_than_those_of_the_training_are_refused(run: Path, key: str, value: object) -> None:
    ensemble = load_ensemble(run)
    check_features(ensemble, FEATURES)
    with pytest.raises(InputError, match=key):
        check_features(ensemble, {**FEATURES, key: value})
