"""The model on disk gives the same numbers, and a bad one is refused with a sentence."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.losses import list_losses, loss_config
from wsi_ncmi.training import RunConfig, fit, load_trained
from wsi_ncmi.training.checkpoint import MODEL_JSON, MODEL_WEIGHTS


@pytest.fixture
def trained(task, kit, tmp_path):
    return fit(task.source, task.fold, task.cohort, RunConfig(model=kit.MODEL, loss=loss_config(name="ncmi"), training=kit.QUICK), out=tmp_path / "run", encoder={"name": "some:encoder", "mpp": 0.5})  # fmt: skip


@pytest.mark.parametrize("name", [info.name for info in list_losses()])
def test_round_trip_of_every_loss(task, kit, tmp_path, name):
    result = fit(task.source, task.fold, task.cohort, RunConfig(model=kit.MODEL, loss=loss_config(name=name), training=kit.QUICK), out=tmp_path / "run")  # fmt: skip
    loaded = load_trained(tmp_path / "run")
    bag = task.source.load(task.fold.test[0])
    for one, other in zip(result.model.predict(bag), loaded.predict(bag), strict=True):
        np.testing.assert_array_equal(one, other)
    probabilities, attention = loaded.predict(bag)
    assert probabilities.dtype == np.float64
    assert probabilities.sum() == pytest.approx(1.0, abs=1e-12)
    assert (probabilities >= 0).all()
    assert attention.shape == (len(bag),)
    assert attention.sum() == pytest.approx(1.0, abs=1e-5)


def test_description(trained, kit, tmp_path):
    config = json.loads((tmp_path / "run" / MODEL_JSON).read_text())
    assert config["classes"] == list(kit.CLASSES)
    assert config["encoder"] == {"name": "some:encoder", "mpp": 0.5}
    assert config["in_features"] == kit.WIDTH
    assert sum(config["class_counts"]) == 24
    assert config["best_epoch"] == trained.best_epoch
    assert config["provenance"]["packages"]["torch"]
    assert str(tmp_path) not in json.dumps(config), "a machine path is in the model"


def test_wrong_features_are_refused(trained, kit):
    for shape in [(0, kit.WIDTH), (5, kit.WIDTH + 1), (kit.WIDTH,)]:
        with pytest.raises(InputError, match=rf"features of shape \(tiles, {kit.WIDTH}\)"):
            trained.model.predict(np.zeros(shape, dtype=np.float16))
    with pytest.raises(InputError, match="NaN"):
        trained.model.predict(np.full((2, kit.WIDTH), np.nan))


def test_missing_altered_and_foreign_models_are_refused(trained, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(InputError, match="holds no trained model"):
        load_trained(tmp_path)
    whole = (folder / MODEL_WEIGHTS).read_bytes()
    (folder / MODEL_WEIGHTS).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(InputError, match="altered after training"):
        load_trained(folder)
    (folder / MODEL_WEIGHTS).write_bytes(whole)
    config = json.loads((folder / MODEL_JSON).read_text())
    (folder / MODEL_JSON).write_text(json.dumps({**config, "schema": "wsi-ncmi-model/99"}))
    with pytest.raises(InputError, match="wsi-ncmi-model/99"):
        load_trained(folder)
    (folder / MODEL_JSON).write_text("{")
    with pytest.raises(InputError, match="isn't a model that this version can load"):
        load_trained(folder)


def test_weights_that_do_not_fit_the_options_are_refused(trained, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    tensors = load_file(folder / MODEL_WEIGHTS)
    tensors.pop("aggregator.score.bias")
    save_file(tensors, folder / MODEL_WEIGHTS)
    from wsi_ncmi.core.files import sha256_file

    config = json.loads((folder / MODEL_JSON).read_text())
    config["weights_sha256"] = sha256_file(folder / MODEL_WEIGHTS)
    (folder / MODEL_JSON).write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"score\.bias"):
        load_trained(folder)
