"""A run that was cut off at any step ends with the same bits as one that wasn't."""

from __future__ import annotations

import json
import random
import resource
import signal
import subprocess
import sys
from dataclasses import asdict, replace

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from wsi_ncmi.core.errors import InputError, storage_fault
from wsi_ncmi.losses import loss_config
from wsi_ncmi.training import RunConfig, fit
from wsi_ncmi.training.checkpoint import MODEL_WEIGHTS
from wsi_ncmi.training.loop import TrainingLoop
from wsi_ncmi.training.resume import read_resume, write_resume

KILLED_RUN = """
import json, os, signal, sys
from pathlib import Path
from wsi_ncmi.cohorts import Fold, open_bag_source
from wsi_ncmi.losses import loss_config
from wsi_ncmi.mil import model_config
from wsi_ncmi.training import RunConfig, TrainingConfig, fit
from wsi_ncmi.training.loop import TrainingLoop

job = json.loads(sys.argv[1])
step, taken = TrainingLoop._take_step, 0

def fatal_step(self, *batch):
    global taken
    taken += 1
    if taken > job["steps"]:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *batch)

TrainingLoop._take_step = fatal_step
source = open_bag_source(Path(job["path"]))
config = RunConfig(model=model_config(**job["model"]), loss=loss_config(**job["loss"]),
                   training=TrainingConfig(**job["training"]))
fit(source, Fold(*map(tuple, job["fold"])), source.embedded_cohort(), config, out=Path(job["out"]))
"""

EVERYTHING = {"epochs": 4, "ema": 0.9, "max_instances": 4, "sampler": "class_balanced", "patience": 3}


def run(task, kit, out, loss, **changes):
    training = replace(kit.QUICK, **{"checkpoint_interval_s": 0.0, **EVERYTHING, **changes})
    return fit(
        task.source, task.fold, task.cohort, RunConfig(model=kit.MODEL, loss=loss, training=training), out=out
    )


def assert_equal_runs(one, other):
    assert (one / MODEL_WEIGHTS).read_bytes() == (other / MODEL_WEIGHTS).read_bytes()
    curves = [pd.read_csv(folder / "curves.csv").drop(columns="seconds") for folder in (one, other)]
    pd.testing.assert_frame_equal(*curves)


def test_sigkill_at_a_random_step_and_resume(task, kit, tmp_path):
    undisturbed = run(task, kit, tmp_path / "a", loss_config(name="ncmi"))
    steps = len(undisturbed.curves) * -(-len(task.fold.train) // kit.QUICK.batch_size)
    at = random.randrange(1, steps)
    training = replace(kit.QUICK, checkpoint_interval_s=0.0, **EVERYTHING)
    fold = [task.fold.train, task.fold.validation, task.fold.test]
    job = {
        "path": str(task.path), "fold": fold, "out": str(tmp_path / "b"), "steps": at, "model": asdict(kit.MODEL),
        "loss": {"name": "ncmi"}, "training": asdict(training),
    }  # fmt: skip
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_RUN, json.dumps(job)], capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert (tmp_path / "b" / "last.ckpt").exists()
    assert not (tmp_path / "b" / MODEL_WEIGHTS).exists()
    run(task, kit, tmp_path / "b", loss_config(name="ncmi"))
    assert_equal_runs(tmp_path / "a", tmp_path / "b")


class CutError(Exception):
    """The plug is pulled."""


def cut_short(monkeypatch, start) -> None:
    """Starts a run that is cut off at its fifth step."""
    take_step, left = TrainingLoop._take_step, [4]

    def step(self, *batch):
        if not left[0]:
            raise CutError
        left[0] -= 1
        return take_step(self, *batch)

    with monkeypatch.context() as patched:
        patched.setattr(TrainingLoop, "_take_step", step)
        with pytest.raises(CutError):
            start()


def test_a_run_begun_with_a_number_of_bags_ends_with_it_where_the_version_may_choose(
    task, kit, tmp_path, monkeypatch
):
    """As 0.1 began it, whose default was the number 16."""
    run(task, kit, tmp_path / "a", loss_config(name="ce"), batch_size=16)
    cut_short(monkeypatch, lambda: run(task, kit, tmp_path / "b", loss_config(name="ce"), batch_size=16))
    run(task, kit, tmp_path / "b", loss_config(name="ce"), batch_size="auto")
    assert_equal_runs(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("later", [("plain_when_far",), ("class_mean_decision", "plain_when_far")])
def test_a_run_begun_before_a_part_of_the_decision_existed_ends_without_it(
    task, kit, tmp_path, monkeypatch, later
):
    run(task, kit, tmp_path / "a", loss_config(name="ncmi", **dict.fromkeys(later, False)))
    cut_short(monkeypatch, lambda: run(task, kit, tmp_path / "b", loss_config(name="ncmi")))
    identity, state = read_resume(tmp_path / "b")
    identity["loss"] = {key: value for key, value in identity["loss"].items() if key not in later}
    write_resume(tmp_path / "b", identity, state)
    run(task, kit, tmp_path / "b", loss_config(name="ncmi"))
    weights = [load_file(tmp_path / name / MODEL_WEIGHTS) for name in "ab"]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not any(".far." in name for name in weights[1])
    assert any(".class_means." in name for name in weights[1]) == ("class_mean_decision" not in later)


@pytest.mark.parametrize(
    ("loss", "cuts"), [("ce", (1, 9, 2)), ("ncmi", (3, 4, 8)), ("ncmi-means", (7, 5)), ("ldam", (3, 9))]
)
def test_any_number_of_cuts(task, kit, tmp_path, monkeypatch, loss, cuts):
    """Cuts at the first step, inside an epoch and at its end; ``means`` has state that an epoch's end changes.

    The class weights of ``ldam`` set in in the last of the four epochs.
    """
    options = loss_config(name="ncmi", code_words="means") if loss == "ncmi-means" else loss_config(name=loss)
    run(task, kit, tmp_path / "a", options)
    take_step = TrainingLoop._take_step
    for cut in cuts:
        left = [cut]

        def step(self, *batch, left=left):
            left[0] -= 1
            if left[0] < 0:
                raise CutError
            return take_step(self, *batch)

        monkeypatch.setattr(TrainingLoop, "_take_step", step)
        with pytest.raises(CutError):
            run(task, kit, tmp_path / "b", options)
        torch.rand(3)  # what happens between has no influence
    monkeypatch.setattr(TrainingLoop, "_take_step", take_step)
    run(task, kit, tmp_path / "b", options)
    assert_equal_runs(tmp_path / "a", tmp_path / "b")


def test_the_checkpoint_of_another_run_is_not_continued(task, kit, tmp_path, monkeypatch):
    def cut_after_the_first(self, *batch):
        if self._step:
            raise CutError
        return 0.0

    monkeypatch.setattr(TrainingLoop, "_take_step", cut_after_the_first)
    with pytest.raises(CutError):
        run(task, kit, tmp_path / "a", kit.CE)
    with pytest.raises(InputError, match=r"training\.epochs is 4 there and 5 now"):
        run(task, kit, tmp_path / "a", kit.CE, epochs=5)


def test_a_damaged_checkpoint_is_named(task, kit, tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "last.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match=r"last\.ckpt isn't a resume checkpoint .* remove it"):
        run(task, kit, folder, kit.CE)


def test_a_full_disk_is_an_error_with_its_number_and_keeps_the_last_state(tmp_path):
    write_resume(tmp_path, {"seed": 1}, {"weights": torch.ones(4)})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError) as caught:  # noqa: PT011, its number is what counts
            write_resume(tmp_path, {"seed": 1}, {"weights": torch.ones(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert storage_fault(caught.value)
    assert read_resume(tmp_path)[1]["weights"].shape == (4,)
