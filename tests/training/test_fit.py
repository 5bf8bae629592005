"""One run: it learns, repeats, never looks at the test part, and says what went wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from wsi_ncmi.core.errors import InputError, TrainingError
from wsi_ncmi.losses import list_losses, loss_config
from wsi_ncmi.mil import model_config
from wsi_ncmi.training import RunConfig, TrainingConfig, fit
from wsi_ncmi.training.bags import BagCache
from wsi_ncmi.training.checkpoint import MODEL_WEIGHTS
from wsi_ncmi.training.fitting import build_modules
from wsi_ncmi.training.scoring import embed, probabilities_of


def weights_of(folder):
    return (folder / MODEL_WEIGHTS).read_bytes()


def curves_of(folder):
    return pd.read_csv(folder / "curves.csv").drop(columns="seconds")


def run(task, kit, out, *, fold=None, cohort=None, **changes):
    training = replace(kit.QUICK, **{k: v for k, v in changes.items() if k not in {"loss", "seed"}})
    return fit(task.source, fold or task.fold, cohort or task.cohort, RunConfig(model=kit.MODEL, loss=changes.get("loss", kit.CE), training=training, seed=changes.get("seed", 0)), out=out)  # fmt: skip


@pytest.mark.parametrize("loss", ["ce", "ncmi"])
def test_learns_the_rare_instance(tmp_path, kit, loss):
    """One tile of ten decides; the bag's mean says little, attention must find it on unseen slides."""
    task = kit.open_task(kit.write_cohort(tmp_path / "b.npz", slides=240, tiles=(5, 15)))
    training = TrainingConfig(epochs=20, batch_size=8, device="cpu", learning_rate=3e-3)
    result = fit(task.source, task.fold, task.cohort, RunConfig(model=kit.MODEL, loss=loss_config(name=loss), training=training), out=tmp_path / "run")  # fmt: skip
    cache = BagCache(task.source, 2**24)
    z = embed(result.model.aggregator, cache, task.fold.test, torch.device("cpu"))
    predicted = probabilities_of(result.model.criterion, z).argmax(axis=1)
    truth = [task.cohort.class_index[task.cohort.by_slide[s].label] for s in task.fold.test]
    assert np.mean(predicted == truth) >= 0.95
    hits = [
        result.model.predict(task.source.load(s))[1].argmax()
        == task.source.load(s)[:, :3].max(axis=1).argmax()
        for s in task.fold.test
    ]
    assert np.mean(hits) >= 0.9


def test_same_seed_same_bits_other_seed_other_bits(task, kit, tmp_path):
    first = run(task, kit, tmp_path / "a")
    state = torch.get_rng_state()
    run(task, kit, tmp_path / "b")
    assert torch.equal(torch.get_rng_state(), state), "the caller's random numbers were touched"
    run(task, kit, tmp_path / "c", seed=1)
    assert weights_of(tmp_path / "a") == weights_of(tmp_path / "b") != weights_of(tmp_path / "c")
    pd.testing.assert_frame_equal(curves_of(tmp_path / "a"), curves_of(tmp_path / "b"))
    assert len(first.curves) == 3
    assert not (tmp_path / "a" / "last.ckpt").exists()


def test_the_test_part_touches_neither_weights_nor_curves(task, kit, tmp_path):
    run(task, kit, tmp_path / "a")
    with np.load(task.path) as archive:
        arrays = dict(archive)
    ends = np.cumsum(arrays["lengths"])
    for position, slide_id in enumerate(arrays["slide_id"]):
        if slide_id in task.fold.test:
            arrays["features"][ends[position] - arrays["lengths"][position] : ends[position]] = 999.0
            arrays["label"][position] = "alpha"
    np.savez(tmp_path / "corrupt.npz", **arrays)
    other = kit.open_task(tmp_path / "corrupt.npz")
    assert other.cohort.classes == task.cohort.classes
    run(other, kit, tmp_path / "b", fold=task.fold)
    assert weights_of(tmp_path / "a") == weights_of(tmp_path / "b")
    pd.testing.assert_frame_equal(curves_of(tmp_path / "a"), curves_of(tmp_path / "b"))


def test_the_kept_epoch_is_the_best_on_validation_and_ties_go_to_the_lower_loss(task, kit, tmp_path):
    result = run(task, kit, tmp_path / "a", epochs=12, learning_rate=3e-3)
    ranks = [(row["val_macro_f1"], -row["val_loss"]) for row in result.curves]
    assert result.best_epoch == 1 + ranks.index(max(ranks))
    by_loss = run(task, kit, tmp_path / "b", epochs=12, learning_rate=3e-3, selection="loss")
    losses = [row["val_loss"] for row in by_loss.curves]
    assert by_loss.best_epoch == 1 + losses.index(min(losses))


def test_patience_ends_training_early(task, kit, tmp_path):
    result = run(task, kit, tmp_path / "a", epochs=40, learning_rate=1e-2, patience=2)
    assert len(result.curves) == result.best_epoch + 2 < 40


def test_options_that_change_the_path_change_the_weights(task, kit, tmp_path):
    run(task, kit, tmp_path / "plain")
    for name, value in {
        "ema": 0.9,
        "max_instances": 2,
        "sampler": "class_balanced",
        "gradient_clip": 0.01,
    }.items():
        run(task, kit, tmp_path / name, **{name: value})
        assert weights_of(tmp_path / name) != weights_of(tmp_path / "plain"), name


def test_every_loss_starts_from_the_same_aggregator():
    reference = None
    for info in list_losses():
        aggregator, _ = build_modules(
            RunConfig(model=model_config(), loss=loss_config(name=info.name), seed=11), 7, (3, 4, 5)
        )
        state = aggregator.state_dict()
        reference = reference or state
        assert all(torch.equal(state[name], reference[name]) for name in reference), info.name
    other, _ = build_modules(RunConfig(model=model_config(), loss=loss_config(), seed=12), 7, (3, 4, 5))
    assert not torch.equal(other.state_dict()["projection.weight"], reference["projection.weight"])


@pytest.mark.parametrize("loss", ["ce", "ncmi"])
def test_a_class_missing_in_validation_is_no_obstacle(task, kit, tmp_path, loss):
    rows = task.cohort.by_slide
    validation = tuple(s for s in task.fold.validation if rows[s].label != "gamma")
    fold = replace(task.fold, validation=validation)
    result = run(task, kit, tmp_path / "a", fold=fold, loss=loss_config(name=loss))
    probabilities, _ = result.model.predict(task.source.load(task.fold.test[0]))
    assert probabilities.shape == (3,)
    assert np.isfinite(probabilities).all()
    assert all(np.isfinite(row["val_loss"]) and np.isfinite(row["val_macro_f1"]) for row in result.curves)


def test_a_validation_part_of_one_class_is_no_obstacle(task, kit, tmp_path):
    rows = task.cohort.by_slide
    fold = replace(task.fold, validation=tuple(s for s in task.fold.validation if rows[s].label == "beta"))
    result = run(task, kit, tmp_path / "a", fold=fold, loss=loss_config(name="ncmi"))
    assert len(curves_of(tmp_path / "a")) == 3
    assert result.best_epoch >= 1


def test_one_class_only_and_empty_parts_are_refused(task, kit, tmp_path):
    rows = task.cohort.by_slide
    alone = replace(task.fold, train=tuple(s for s in task.fold.train if rows[s].label == "beta"))
    with pytest.raises(InputError, match="only the class 'beta'"):
        run(task, kit, tmp_path / "a", fold=alone)
    with pytest.raises(InputError, match="validation part of the fold is empty"):
        run(task, kit, tmp_path / "a", fold=replace(task.fold, validation=()))


def test_a_loss_that_is_not_finite_names_step_slides_and_norm(task, kit, tmp_path, monkeypatch):
    """The bag source refuses NaN itself, so the fault is planted behind it."""
    victim = task.fold.train[5]
    load = BagCache.bag
    monkeypatch.setattr(BagCache, "bag", lambda self, s: load(self, s) * (np.nan if s == victim else 1.0))
    with pytest.raises(
        TrainingError, match=r"epoch 1, step \d+: the loss is nan and the gradient's norm nan"
    ) as error:
        run(task, kit, tmp_path / "a")
    assert victim in str(error.value)
    assert not (tmp_path / "a" / MODEL_WEIGHTS).exists()


def test_a_learning_rate_that_explodes_stops_with_a_sentence(task, kit, tmp_path):
    with pytest.raises(TrainingError, match=r"lower training\.learning_rate \(now 1e\+30\)"):
        run(task, kit, tmp_path / "a", learning_rate=1e30, gradient_clip=0.0, epochs=20)


def test_the_callers_thread_count_is_kept(task, kit, tmp_path):
    before = torch.get_num_threads()
    run(task, kit, tmp_path / "a", threads=2 if before == 1 else 1)
    assert torch.get_num_threads() == before
