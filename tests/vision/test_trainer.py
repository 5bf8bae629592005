"""One run: what it learns, what it leaves, and that a cut changes nothing."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
import torch

from wsi_ncmi.core.errors import InputError, TrainingError
from wsi_ncmi.losses import list_losses, loss_config
from wsi_ncmi.vision import ImageDataConfig, fit_images, load_classifier, open_images
from wsi_ncmi.vision.loop import ImageLoop, channel_statistics

KILLED_RUN = """
import json, os, signal, sys
from pathlib import Path
from wsi_ncmi.losses import loss_config
from wsi_ncmi.vision import *
from wsi_ncmi.vision.loop import ImageLoop

job = json.loads(sys.argv[1])
step, taken = ImageLoop._take_step, 0

def fatal_step(self, x, y):
    global taken
    taken += 1
    if taken > job["steps"]:
        os.kill(os.getpid(), signal.SIGKILL)
    step(self, x, y)

ImageLoop._take_step = fatal_step
config = ImageJobConfig(data=job["data"], network=job["network"], recipe=job["recipe"])
fit_images(open_images(config.data), config, loss_config(**job["loss"]), seed=0, out=Path(job["out"]))
"""


def run(vision, out, loss="ce", seed=0, **changes):
    loss = loss_config(name=loss) if isinstance(loss, str) else loss
    more = {name: changes.pop(name) for name in ("until", "overwrite", "on_epoch") if name in changes}
    network = replace(vision.network, arguments={**vision.network.arguments, **changes.pop("arguments", {})})
    data = replace(vision.data, **changes.pop("data", {}))
    images = open_images(data) if data != vision.data else vision.images
    config = replace(vision.config, data=data, network=network, recipe=replace(vision.recipe, **changes))
    return fit_images(images, config, loss, seed=seed, out=out, **more)


def assert_equal_runs(one, other):
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    curves = [pd.read_csv(f / "curves.csv").drop(columns=["seconds", "images_per_s"]) for f in (one, other)]
    pd.testing.assert_frame_equal(*curves)


@pytest.mark.parametrize("loss", ["ce", "ncmi"])
def test_it_learns_and_what_it_leaves_predicts_the_same(vision, tmp_path, loss):
    result = run(vision, tmp_path, loss, epochs=10)
    last = result.curves[-1]
    assert result.finished
    assert last["top1"] > 0.95
    assert last["ncmi"] < result.curves[0]["ncmi"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "curves.csv",
        "model.json",
        "model.safetensors",
        "run.json",
    ]
    classifier = load_classifier(tmp_path)
    p = classifier.predict(vision.images.test.pixels)
    assert classifier.classes == ("red", "green", "blue")
    assert (p.argmax(axis=1) == vision.images.test.y).mean() == last["top1"]
    record = json.loads((tmp_path / "run.json").read_text())
    assert ("form" in record["identity"]) == (loss == "ncmi")
    assert "path" not in record["identity"]["data"]


@pytest.mark.parametrize("name", [info.name for info in list_losses()])
def test_every_loss_trains(vision, tmp_path, name):
    result = run(vision, tmp_path, name, epochs=1)
    assert all(
        np.isfinite(result.curves[0][key])
        for key in ("train_loss", "top1", "top5", "macro_f1", "cmi", "gamma")
    )


def test_the_paper_preset_gets_its_class_means(vision, tmp_path):
    run(vision, tmp_path, loss_config(name="ncmi", preset="paper"), epochs=1)
    criterion = load_classifier(tmp_path).criterion
    assert not torch.equal(criterion.log_decision_centroids, criterion.log_centroids)


def test_the_network_starts_and_is_fed_alike_under_every_loss(vision, tmp_path, monkeypatch):
    seen = {}
    step = ImageLoop._take_step

    def watched(self, x, y):
        key = type(self._criterion).__name__
        if key not in seen:
            seen[key] = [x.clone(), y.clone(), *(p.detach().clone() for p in self._network.parameters())]
        step(self, x, y)

    monkeypatch.setattr(ImageLoop, "_take_step", watched)
    for loss in ("ce", "ncmi"):
        run(vision, tmp_path / loss, loss, epochs=1)
    assert all(torch.equal(a, b) for a, b in zip(*seen.values(), strict=True))


def test_sigkill_at_a_random_step_and_resume(vision, tmp_path):
    noisy = {"arguments": {"drop_path_rate": 0.2, "drop_rate": 0.1}}
    run(vision, tmp_path / "a", "ncmi", checkpoint_interval_s=0.0, **noisy)
    recipe = replace(vision.recipe, checkpoint_interval_s=0.0)
    network = replace(vision.network, arguments={**vision.network.arguments, **noisy["arguments"]})
    job = {
        "data": {**asdict(vision.data), "path": str(vision.data.path)}, "network": asdict(network),
        "loss": {"name": "ncmi"}, "recipe": asdict(recipe), "out": str(tmp_path / "b"),
        "steps": random.randrange(1, 3 * 4),
    }  # fmt: skip
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_RUN, json.dumps(job)], capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert [p.name for p in (tmp_path / "b").iterdir()] == ["last.ckpt"]
    torch.rand(3)  # what happens between has no influence
    run(vision, tmp_path / "b", "ncmi", checkpoint_interval_s=0.0, **noisy)
    assert not (tmp_path / "b" / "last.ckpt").exists()
    assert_equal_runs(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize(
    "loss", [loss_config(name="ncmi", preset="paper"), loss_config(name="ncmi", code_words="means")]
)
def test_a_run_in_pieces_of_one_step_equals_a_whole_one(vision, tmp_path, loss):
    """Stops after each step, inside an epoch and at its end; both losses have state that an epoch's end changes."""
    run(vision, tmp_path / "a", loss)
    pieces = 0
    while not run(vision, tmp_path / "b", loss, until=time.monotonic()).finished:
        pieces += 1
    assert pieces == 3 * 4 - 1
    assert_equal_runs(tmp_path / "a", tmp_path / "b")


def test_a_finished_run_is_only_read(vision, tmp_path, monkeypatch):
    first = run(vision, tmp_path)
    monkeypatch.setattr(ImageLoop, "run", lambda *_: pytest.fail("trained again"))
    again = run(vision, tmp_path)
    assert again.finished
    assert [row["top1"] for row in again.curves] == [row["top1"] for row in first.curves]


def test_another_configuration_is_not_taken_for_it(vision, tmp_path):
    run(vision, tmp_path / "done")
    assert not run(vision, tmp_path / "begun", until=time.monotonic()).finished
    for folder in ("done", "begun"):
        with pytest.raises(
            InputError, match=r"another configuration \(recipe\.epochs is 3 there and 4 now\)"
        ):
            run(vision, tmp_path / folder, epochs=4)
        assert len(run(vision, tmp_path / folder, epochs=4, overwrite=True).curves) == 4


def test_a_default_that_changes_is_another_run(vision, tmp_path, monkeypatch):
    from wsi_ncmi.losses import ncmi_form

    run(vision, tmp_path, "ncmi", epochs=1)
    changed = {**ncmi_form.PRESETS, "default": replace(ncmi_form.PRESETS["default"], tau=0.77)}
    monkeypatch.setattr(ncmi_form, "PRESETS", changed)
    with pytest.raises(InputError, match=r"form\.tau is None there and 0\.77 now"):
        run(vision, tmp_path, "ncmi", epochs=1)


def test_damaged_records_are_named(vision, tmp_path):
    run(vision, tmp_path, epochs=1)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(InputError, match="was altered after training"):
        load_classifier(tmp_path)
    weights.unlink()
    with pytest.raises(InputError, match="holds no trained model"):
        load_classifier(tmp_path)
    (tmp_path / "curves.csv").write_text("epoch\n")
    with pytest.raises(InputError, match=r"can't be read .* remove its folder"):
        run(vision, tmp_path, epochs=1)


@pytest.mark.parametrize(
    "wrong", [np.zeros((2, 12, 12, 3)), np.zeros((2, 8, 8, 3), np.uint8), np.zeros((0, 12, 12, 3), np.uint8)]
)
def test_a_classifier_says_what_it_takes(vision, tmp_path, wrong):
    run(vision, tmp_path, epochs=1)
    with pytest.raises(InputError, match=r"takes uint8 images \(N, 12, 12, 3\)"):
        load_classifier(tmp_path).predict(wrong)


def test_a_rate_that_explodes_stops_the_run(vision, tmp_path):
    with pytest.raises(TrainingError, match=r"at epoch \d.*isn't finite; lower recipe\.learning_rate"):
        run(vision, tmp_path, "square", learning_rate=1e30)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 71}, "only 70 training images"),
        ({"sync_batch_norm": True}, "needs CUDA"),
        ({"data": {"image_px": 24}}, "images in memory are 12 × 12"),
    ],
)
def test_what_does_not_fit_is_said_before_the_start(vision, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        run(vision, tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


def test_a_gpu_that_is_not_there_is_said(vision, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(InputError, match="no usable GPU"):
        run(vision, tmp_path / "out", device="cuda")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "bfloat16"},
        {"precision": "float16"},
        {"gradient_clip": 0.1},
        {"channels_last": False},
        {"nesterov": False},
    ],
)
def test_switches_change_the_weights_and_it_still_learns(vision, tmp_path, changes):
    run(vision, tmp_path / "plain", "ncmi", epochs=8)
    result = run(vision, tmp_path / "switched", "ncmi", epochs=8, **changes)
    assert result.curves[-1]["top1"] > 0.8
    assert (tmp_path / "plain" / "model.safetensors").read_bytes() != (
        tmp_path / "switched" / "model.safetensors"
    ).read_bytes()


def test_evaluation_every_other_epoch_leaves_the_training_alone(vision, tmp_path):
    often, seldom = run(vision, tmp_path / "a"), run(vision, tmp_path / "b", evaluate_every=2)
    assert [np.isfinite(row["top1"]) for row in seldom.curves] == [False, True, True]
    assert often.curves[-1]["top1"] == seldom.curves[-1]["top1"]
    assert often.curves[-1]["train_loss"] == seldom.curves[-1]["train_loss"]


def test_scores_on_validation_never_see_the_test_part(vision, tmp_path):
    data = {"validation": 0.2, "evaluate_on": "validation"}
    rows = run(vision, tmp_path, "ncmi", data=data).curves
    assert {row["part"] for row in rows} == {"validation"}
    assert "test" not in json.loads((tmp_path / "run.json").read_text())["identity"]["images"]


def test_channel_statistics_are_exact(vision):
    pixels = vision.images.train.pixels.astype(np.float64)
    mean, std = channel_statistics(vision.images.train)
    np.testing.assert_allclose(mean, pixels.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, pixels.std(axis=(0, 1, 2)), rtol=1e-12)


def test_pictures_in_files_train_too(tmp_path, vision):
    from PIL import Image

    for part, source in (("train", vision.images.train), ("val", vision.images.test)):
        for i, (pixels, y) in enumerate(zip(source.pixels, source.y, strict=True)):
            folder = tmp_path / "set" / part / str(y)
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).resize((20, 16)).save(folder / f"{i:03d}.png")
    data = {"path": tmp_path / "set", "image_px": 12, "crop_scale": 0.5}
    result = run(vision, tmp_path / "out", "ncmi", data=data, epochs=5, loader_workers=0)
    assert result.curves[-1]["top1"] > 0.9
    with pytest.raises(InputError, match=r"need data\.image_px"):
        run(vision, tmp_path / "other", data={**data, "image_px": None})


def test_options_are_data(vision):
    assert "path" not in ImageDataConfig().identity()
    assert "threads" not in vision.recipe.identity()
