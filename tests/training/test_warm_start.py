"""Starting from another model's weights: what is taken, what is left, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.mil.peers import PeerAbmil, PeerClam
from tests.training.conftest import CE, CLASSES, MODEL, QUICK, WIDTH, open_task, save_cohort, write_cohort
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.losses import loss_config
from wsi_ncmi.mil import model_config
from wsi_ncmi.mil.config import DsmilConfig
from wsi_ncmi.training import Experiment, RunConfig, TrainConfig, fit, prepare_data, run_experiments
from wsi_ncmi.training.warm_start import fitting_parts, read_warm_start

ONE = replace(QUICK, epochs=1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run's model of three classes."""
    folder = tmp_path_factory.mktemp("there")
    task = open_task(write_cohort(folder / "bags.npz"))
    return fit(
        task.source,
        task.fold,
        task.cohort,
        RunConfig(model=MODEL, loss=CE, training=ONE),
        out=folder / "model",
    )


def task_of(tmp_path, names=CLASSES, seed=1):
    """Another cohort, of classes of these names."""
    rng = np.random.default_rng(seed)
    lengths = np.full(48, 4)
    labels = [names[i // 2 % len(names)] for i in range(48)]
    save_cohort(tmp_path / "bags.npz", rng.normal(size=(192, WIDTH)), lengths, labels)
    return open_task(tmp_path / "bags.npz")


def fit_one(task, out, **settings):
    return fit(
        task.source,
        task.fold,
        task.cohort,
        RunConfig(model=MODEL, loss=CE, training=ONE, **settings),
        out=out,
    )


def frozen(task, out, init):
    """The first weights of a run: a rate of almost nothing leaves them."""
    still = replace(ONE, learning_rate=1e-12, weight_decay=0.0)
    return fit(
        task.source,
        task.fold,
        task.cohort,
        RunConfig(model=MODEL, loss=CE, training=still, init=init),
        out=out,
    )


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    a, b = dict(one.named_parameters()), dict(other.named_parameters())
    return all(torch.allclose(a[name], b[name], atol=1e-6) for name in a)


def test_aggregator_and_head_are_taken_where_the_classes_are_the_same(tmp_path, trained) -> None:
    result = frozen(task_of(tmp_path), tmp_path / "run", trained.folder)
    assert same(result.model.aggregator, trained.model.aggregator)
    assert same(result.model.criterion, trained.model.criterion)
    told = json.loads((tmp_path / "run" / "model.json").read_text())["init"]
    assert told["sha256"] == trained.model.config["weights_sha256"]
    assert (told["left"], told["criterion"]) == ([], ["head.weight", "head.bias"])


def test_the_head_of_other_classes_is_left_and_named(tmp_path, trained) -> None:
    result = frozen(task_of(tmp_path, ("x", "y")), tmp_path / "run", trained.folder)
    assert same(result.model.aggregator, trained.model.aggregator)
    told = json.loads((tmp_path / "run" / "model.json").read_text())["init"]
    assert told["left"] == ["the criterion (of 3 other classes: alpha, beta, gamma)"]


def test_as_many_classes_of_other_names_are_other_classes(trained) -> None:
    start = read_warm_start(trained.folder)
    parts = fitting_parts(start, RunConfig(model=MODEL, loss=CE), WIDTH, 3, ("alpha", "beta", "delta"))
    assert parts.criterion == ()
    other_loss = fitting_parts(start, RunConfig(model=MODEL, loss=loss_config("ncmi")), WIDTH, 3, CLASSES)
    assert other_loss.left == ("the criterion (of the loss 'ce' with its settings)",)


@pytest.mark.parametrize(
    ("model", "width", "words"),
    [
        (
            model_config("mean", hidden=16),
            WIDTH,
            "aggregator 'abmil' and the training is of 'mean'; give --model",
        ),
        (MODEL, 7, "takes features of width 12, these have 7"),
        (replace(MODEL, hidden=8), WIDTH, r"projection.weight is \(8, 12\) .* give --set model.hidden=16"),
        (replace(MODEL, standardise=True), WIDTH, "give --set model.standardise=false"),
    ],
)
def test_what_does_not_fit_is_refused(trained, model, width, words) -> None:
    with pytest.raises(InputError, match=words):
        fitting_parts(read_warm_start(trained.folder), RunConfig(model=model, loss=CE), width, 3, CLASSES)


def test_a_published_feather_starts_our_abmil(tmp_path) -> None:
    peer = PeerAbmil(WIDTH, 108, hidden=16, width=8)
    save_file({f"model.{name}": t for name, t in peer.state_dict().items()}, tmp_path / "model.safetensors")
    result = frozen(task_of(tmp_path), tmp_path / "run", tmp_path / "model.safetensors")
    bag = torch.randn(9, WIDTH)
    with torch.no_grad():
        _, weights, h = peer(bag)
        found, attention = result.model.aggregator(bag, return_attention=True)
    torch.testing.assert_close(attention, weights[:, 0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found[0], (weights * h).sum(0), atol=1e-5, rtol=1e-4)


def test_class_wise_parts_of_another_number_of_classes_are_left(tmp_path) -> None:
    torch.save(PeerClam(WIDTH, 2, hidden=6, width=5).state_dict(), tmp_path / "s_0_checkpoint.pt")
    start = read_warm_start(tmp_path / "s_0_checkpoint.pt")
    parts = fitting_parts(start, RunConfig(model=start.model, loss=CE), WIDTH, 3, CLASSES)
    assert "projection.weight" in parts.aggregator
    assert [text for text in parts.left if text.startswith("instances")] == [
        "instances.bias (of each class)", "instances.weight (of each class)",
    ]  # fmt: skip
    dsmil = model_config("dsmil", dsmil=DsmilConfig(query_width=5))
    with pytest.raises(InputError, match="give --model clam_sb"):
        fitting_parts(start, RunConfig(model=dsmil, loss=CE), WIDTH, 3, CLASSES)


def test_it_is_part_of_the_runs_identity_and_a_resumed_run_keeps_its_own_weights(tmp_path, trained) -> None:
    task = task_of(tmp_path)
    plain, warm = (
        fit_one(task, tmp_path / name, init=init) for name, init in (("a", None), ("b", trained.folder))
    )
    assert "init" not in plain.model.config["identity"]
    assert warm.model.config["identity"]["init"] == trained.model.config["weights_sha256"]
    assert not same(plain.model.aggregator, warm.model.aggregator)
    whole = RunConfig(
        model=MODEL, loss=CE, training=replace(QUICK, epochs=2, checkpoint_interval_s=0), init=trained.folder
    )

    class StoppedError(Exception):
        pass

    def stop(row):
        if row["epoch"] == 1:
            raise StoppedError

    undisturbed = fit(task.source, task.fold, task.cohort, whole, out=tmp_path / "c")
    with pytest.raises(StoppedError):
        fit(task.source, task.fold, task.cohort, whole, out=tmp_path / "d", on_epoch=stop)
    resumed = fit(task.source, task.fold, task.cohort, whole, out=tmp_path / "d")
    for name, tensor in undisturbed.model.aggregator.state_dict().items():
        assert torch.equal(tensor, resumed.model.aggregator.state_dict()[name])


def experiment(path, out, **settings):
    config = TrainConfig(
        features=path, out=out, model=MODEL, losses=(CE,), training=ONE, workers=1, **settings
    )
    return Experiment(replace(config, split=replace(config.split, folds=2)), prepare_data(config))


def test_a_model_that_knows_test_patients_is_refused(tmp_path, caplog) -> None:
    path = write_cohort(tmp_path / "bags.npz")
    first = experiment(path, tmp_path / "first")
    run_experiments([first])
    init = tmp_path / "first" / "fold_0" / "seed_0"
    with pytest.raises(InputError, match=r"was trained on patients of the test part of fold 1.*--allow-leak"):
        run_experiments([experiment(path, tmp_path / "second", init=init)])
    assert not (tmp_path / "second").exists()
    same_fold = experiment(path, tmp_path / "third", init=init, allow_leak=True)
    run_experiments([replace(same_fold, folds=[0])])
    assert "the result would be too good" in caplog.text


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: p / "nowhere", "There is no model"),
        (lambda p: p, "holds no trained model"),
        (
            lambda p: (p / "x.pt", torch.save({"layer.weight": torch.zeros(2)}, p / "x.pt"))[0],
            "is no checkpoint of",
        ),
        (lambda p: (p / "x.zip", (p / "x.zip").write_bytes(b"x"))[0], "is no zip file"),
    ],
)
def test_files_that_are_no_model_are_named(tmp_path, make, words) -> None:
    with pytest.raises(InputError, match=words):
        read_warm_start(make(tmp_path))


def test_of_several_models_of_a_run_one_is_to_be_chosen(tmp_path) -> None:
    for seed in (0, 1):
        folder = tmp_path / "fold_0" / f"seed_{seed}"
        folder.mkdir(parents=True)
        (folder / "model.json").write_text("{}")
    with pytest.raises(InputError, match=r"holds 2 models; give one, such as .*fold_0/seed_0"):
        read_warm_start(tmp_path)


@pytest.mark.parametrize("named", ["", "/model.safetensors"])
@pytest.mark.parametrize(
    ("broken", "content", "words"),
    [
        ("model.json", "{", "isn't a model that this version can load"),
        ("model.json", "3", "isn't a model that this version can load"),
        ("model.safetensors", None, "holds no model.safetensors|There is no model"),
    ],
)
def test_a_damaged_run_is_one_sentence(tmp_path, named, broken, content, words) -> None:
    for name in ("model.json", "model.safetensors"):
        (tmp_path / name).write_text("{}")
    (tmp_path / broken).unlink() if content is None else (tmp_path / broken).write_text(content)
    with pytest.raises(InputError, match=words):
        read_warm_start(Path(f"{tmp_path}{named}"))
