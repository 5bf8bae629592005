"""Every model through the training room: fitted, stored, loaded, and resumed bit for bit."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from tests.mil.settings import config_with
from tests.training.conftest import CE, QUICK, WIDTH, open_task, write_cohort
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.mil import list_models, model_config
from wsi_ncmi.mil.config import AsmilConfig, VitConfig
from wsi_ncmi.training import RunConfig, fit, load_trained
from wsi_ncmi.training.checkpoint import MODEL_WEIGHTS
from wsi_ncmi.training.loop import TrainingLoop

SMALL = {
    "hidden": 8,
    "attention": 4,
    "asmil": AsmilConfig(tokens=3, dropped=1),
    "vit": VitConfig(layers=1, feed_forward=8),
}


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return open_task(write_cohort(tmp_path_factory.mktemp("cohort") / "bags.npz", slides=24))


def _fit(task, model, out, **changes):
    training = QUICK.__class__(**{**asdict(QUICK), "epochs": 2, "checkpoint_interval_s": 0.0, **changes})
    return fit(
        task.source, task.fold, task.cohort, RunConfig(model=model, loss=CE, training=training), out=out
    )


@pytest.mark.parametrize("name", [info.name for info in list_models()])
def test_a_fitted_model_is_stored_and_loaded_whole(task, tmp_path, name):
    result = _fit(task, config_with(name, **SMALL), tmp_path)
    loaded = load_trained(tmp_path)
    bag = np.random.default_rng(0).normal(size=(9, WIDTH)).astype(np.float16)
    probabilities, attention = loaded.predict(bag)
    expected, weights = result.model.predict(bag)
    np.testing.assert_array_equal(probabilities, expected)
    np.testing.assert_array_equal(attention, weights)
    assert attention.shape == (9,)
    assert attention.sum() == pytest.approx(1, abs=1e-5)
    stored = json.loads((tmp_path / "model.json").read_text())["model"]
    assert model_config(**stored) == config_with(name, **SMALL)


class _CutError(Exception):
    """The plug is pulled."""


@pytest.mark.parametrize("name", ["dtfd", "acmil", "asmil", "clam_mb"])
def test_a_cut_run_ends_with_the_same_bits(task, tmp_path, monkeypatch, name):
    """Random pseudo-bags, masks, dropped tokens and the moving anchor all follow from the saved state."""
    model = config_with(name, feature_dropout=0.1, mixup=0.5, **SMALL)
    _fit(task, model, tmp_path / "a")
    step, taken = TrainingLoop._take_step, []

    def cut(self, *batch):
        taken.append(1)
        if len(taken) == 4:
            raise _CutError
        return step(self, *batch)

    monkeypatch.setattr(TrainingLoop, "_take_step", cut)
    with pytest.raises(_CutError):
        _fit(task, model, tmp_path / "b")
    _fit(task, model, tmp_path / "b")
    assert (tmp_path / "a" / MODEL_WEIGHTS).read_bytes() == (tmp_path / "b" / MODEL_WEIGHTS).read_bytes()


def test_the_loop_adds_what_the_model_returns(task, tmp_path):
    """With a weight of 0 the instance classifiers of CLAM stay as they began; with the default they learn."""
    from wsi_ncmi.mil.config import ClamConfig
    from wsi_ncmi.training.fitting import build_modules

    weights = []
    for weight in (0.0, 1.0):
        model = config_with("clam_sb", clam=ClamConfig(instance_weight=weight), **SMALL)
        fitted = _fit(task, model, tmp_path / str(weight)).model.aggregator
        fresh, _ = build_modules(RunConfig(model=model, loss=CE), WIDTH, (4, 4, 4))
        # Biases have no weight decay: they move by gradients alone.
        weights.append((fitted.instances.bias - fresh.instances.bias).abs().max().item())
    assert weights[0] == 0
    assert weights[1] > 0


def test_distance_biases_get_the_tiles_places_in_training_and_prediction(tmp_path):
    """The same features at other places: training sees them (also of drawn tiles), and so does prediction."""
    path = write_cohort(tmp_path / "bags.npz", slides=24)
    with np.load(path) as file:
        content = dict(file)
    model = config_with("vit", **{**SMALL, "vit": VitConfig(layers=2, feed_forward=8, alibi=True)})
    fitted = []
    for name, side in (("near", 2), ("far", 9)):
        rng = np.random.default_rng(1)
        content["coords"] = rng.integers(0, side, (len(content["features"]), 2)) * 256
        np.savez(tmp_path / f"{name}.npz", **content)
        task = open_task(tmp_path / f"{name}.npz")
        fitted.append(_fit(task, model, tmp_path / name, max_instances=5).model)
    gaps = [model.aggregator.layers[0].attention.distance.mean.item() for model in fitted]
    assert 0 < gaps[0] < gaps[1]
    bag = content["features"][:7]
    places = content["coords"][:7]
    loaded = load_trained(tmp_path / "far")
    expected, _ = fitted[1].predict(bag, places)
    np.testing.assert_array_equal(loaded.predict(bag, places)[0], expected)
    assert not np.array_equal(loaded.predict(bag, places * 3)[0], expected)
    assert loaded.tile_probabilities(bag).shape == (7, 3)
    with pytest.raises(InputError, match="need the tiles' coordinates"):
        loaded.predict(bag)
    with pytest.raises(InputError, match="need the tiles' coordinates"):
        _fit(open_task(path), model, tmp_path / "without")
