"""The grid: layout, resume by run, equal results for any number of processes, lost runs reported."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from wsi_ncmi.cohorts import open_bag_source
from wsi_ncmi.core.errors import InputError, TrainingError
from wsi_ncmi.losses import loss_config
from wsi_ncmi.training import TrainConfig, TrainingData, load_trained, run_experiment
from wsi_ncmi.training import experiment as module
from wsi_ncmi.training.runs import do_run, read_run_predictions

LOSSES = (loss_config(name="ce"), loss_config(name="ncmi"))


class Recorder:
    """A progress reporter that counts."""

    def __init__(self):
        self.total = self.done = 0.0
        self.notes = []

    def task(self, description, total, unit=""):
        self.total = total
        return self

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return False

    def advance(self, amount=1, note=""):
        self.done += amount
        self.notes.append(note)


def run(task, kit, out, losses=LOSSES, progress=None, **changes):
    settings = {"model": kit.MODEL, "training": kit.QUICK, "seeds": 2, "workers": 1, **changes}
    data = TrainingData(open_bag_source(task.path), task.cohort, task.splits)
    return run_experiment(TrainConfig(losses=losses, out=out, **settings), data, progress)


def test_grid_of_two_losses(task, kit, tmp_path):
    progress = Recorder()
    result = run(task, kit, tmp_path, progress=progress)
    assert result.failures == ()
    assert result.skipped == 0
    tested = [s for fold in task.splits.folds for s in fold.test]
    table = result.predictions
    assert len(table) == len(tested) * 2 * 2
    for loss in ("ce", "ncmi"):
        folder = tmp_path / loss
        on_disk = read_run_predictions(folder / "predictions.csv")
        assert list(on_disk.columns) == [
            "slide_id", "case_id", "fold", "seed", "label", "prediction", "p_alpha", "p_beta", "p_gamma", "centre",
        ]  # fmt: skip
        pd.testing.assert_frame_equal(
            on_disk, table[table["loss"] == loss].drop(columns="loss").reset_index(drop=True)
        )
        for seed in (0, 1):
            assert sorted(on_disk[on_disk["seed"] == seed]["slide_id"]) == sorted(tested)
        rows = task.cohort.by_slide
        assert on_disk["label"].tolist() == [rows[s].label for s in on_disk["slide_id"]]
        assert on_disk["case_id"].tolist() == [rows[s].case_id for s in on_disk["slide_id"]]
        probabilities = on_disk.filter(like="p_").to_numpy()
        np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-9)
        assert on_disk["prediction"].tolist() == [kit.CLASSES[i] for i in probabilities.argmax(axis=1)]
        model = load_trained(folder / "fold_1" / "seed_0")
        row = on_disk[(on_disk["fold"] == 1) & (on_disk["seed"] == 0)].iloc[0]
        np.testing.assert_allclose(
            model.predict(task.source.load(row["slide_id"]))[0], row[["p_alpha", "p_beta", "p_gamma"]].astype(float),
            atol=1e-5,
        )  # fmt: skip
    assert result.curves.groupby(["loss", "fold", "seed"]).size().tolist() == [3] * 8
    assert progress.done == progress.total == 8 * 3
    assert "run 8/8: ncmi fold 1 seed 1 epoch 3" in progress.notes[-1]


def test_finished_runs_are_skipped_and_missing_ones_done(task, kit, tmp_path):
    first = run(task, kit, tmp_path, (kit.CE,))
    assert (tmp_path / "predictions.csv").is_file()
    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.glob("fold_*/seed_*/model.safetensors")}
    assert len(stamps) == 4
    lost = tmp_path / "fold_1" / "seed_0"
    (lost / "run.json").unlink()
    again = run(task, kit, tmp_path, (kit.CE,))
    assert again.skipped == 3
    changed = [p for p, stamp in stamps.items() if p.stat().st_mtime_ns != stamp]
    assert changed == [lost / "model.safetensors"]
    pd.testing.assert_frame_equal(first.predictions, again.predictions)
    # The pace is no part of a run's identity.
    assert run(task, kit, tmp_path, (kit.CE,), training=replace(kit.QUICK, cache_mib=1)).skipped == 4


def test_another_configuration_is_refused_unless_overwritten(task, kit, tmp_path):
    run(task, kit, tmp_path, (kit.CE,), seeds=1)
    other = replace(kit.QUICK, learning_rate=1e-4)
    with pytest.raises(
        InputError, match=r"training\.learning_rate is 0\.\d+ there and 0\.0001 now.*--overwrite"
    ):
        run(task, kit, tmp_path, (kit.CE,), seeds=2, training=other)
    assert not (tmp_path / "fold_0" / "seed_1").exists(), "something was started"
    result = run(task, kit, tmp_path, (kit.CE,), seeds=1, training=other, overwrite=True)
    assert result.skipped == 0
    stored = json.loads((tmp_path / "fold_0" / "seed_0" / "model.json").read_text())
    assert stored["training"]["learning_rate"] == 1e-4
    with pytest.raises(InputError, match=r"loss\.name is ce there and ncmi now"):
        run(task, kit, tmp_path, (loss_config(name="ncmi"),), seeds=1, training=other)


def test_other_features_under_the_same_names_are_noticed(task, kit, tmp_path):
    run(task, kit, tmp_path / "out", (kit.CE,), seeds=1)
    kit.write_cohort(task.path, seed=5)
    with pytest.raises(InputError, match=r"holds a run of another configuration \((features|split)\."):
        run(kit.open_task(task.path), kit, tmp_path / "out", (kit.CE,), seeds=1)


class KillerOnce(Recorder):
    """Kills a process at the first news from any of them."""

    killed = False

    def advance(self, amount=1, note=""):
        super().advance(amount, note)
        if not self.killed:
            os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
            self.killed = True


@pytest.mark.slow
def test_two_processes_give_the_same_bits_even_when_one_is_killed(task, kit, tmp_path):
    alone = run(task, kit, tmp_path / "one", (kit.CE,))
    progress = KillerOnce()
    several = run(task, kit, tmp_path / "two", (kit.CE,), workers=2, progress=progress)
    assert progress.killed
    assert several.failures == ()
    assert progress.done == progress.total
    pd.testing.assert_frame_equal(several.predictions, alone.predictions)
    assert not multiprocessing.active_children()


def test_the_only_run_that_is_left_starts_no_process(task, kit, tmp_path, monkeypatch):
    run(task, kit, tmp_path, (kit.CE,), seeds=1)
    (tmp_path / "fold_0" / "seed_0" / "run.json").unlink()
    (tmp_path / "fold_0" / "seed_0" / "model.json").unlink()
    monkeypatch.delattr("wsi_ncmi.parallel.tasks.ProcessPool")
    again = run(task, kit, tmp_path, (kit.CE,), seeds=1, workers=2)
    assert (again.failures, again.skipped) == ((), 1)


def test_a_run_that_fails_leaves_the_others(task, kit, tmp_path, monkeypatch):
    def failing(run, *others):
        if run.seed in lost:
            raise TrainingError(f"Seed {run.seed} went wrong.")
        do_run(run, *others)

    lost = {1}
    monkeypatch.setattr(module, "do_run", failing)
    result = run(task, kit, tmp_path, (kit.CE,))
    assert {(f.fold, f.seed, f.reason) for f in result.failures} == {
        (k, 1, "Seed 1 went wrong.") for k in (0, 1)
    }
    assert set(result.predictions["seed"]) == {0}
    lost = {0}
    with pytest.raises(
        TrainingError, match=r"Not one of 2 runs has a result; the first: Seed 0 went wrong\."
    ):
        run(task, kit, tmp_path / "none", (kit.CE,), seeds=1)


def test_several_settings_of_one_loss_are_numbered(task, kit, tmp_path):
    settings = (loss_config("label_smoothing"), loss_config("label_smoothing", label_smoothing=0.2))
    result = run(task, kit, tmp_path, settings, seeds=1)
    assert set(result.folders) == {"label_smoothing", "label_smoothing-2"}
    stored = json.loads((tmp_path / "label_smoothing-2" / "fold_0" / "seed_0" / "model.json").read_text())
    assert stored["loss"]["label_smoothing"] == 0.2


def test_a_slide_without_tiles_is_refused_before_anything_starts(task, kit, tmp_path):
    with np.load(task.path) as archive:
        arrays = dict(archive)
    keep = np.repeat(arrays["slide_id"] != task.fold.test[0], arrays["lengths"])
    arrays["lengths"][arrays["slide_id"] == task.fold.test[0]] = 0
    np.savez(task.path, **{**arrays, "features": arrays["features"][keep]})
    with pytest.raises(InputError, match=f"'{task.fold.test[0]}' has no tiles"):
        run(task, kit, tmp_path / "out", (kit.CE,))
    assert not (tmp_path / "out").exists()


def test_a_leaking_split_is_refused_unless_allowed(task, kit, tmp_path):
    fold = task.fold
    leaking = replace(
        task.splits, folds=(replace(fold, train=(*fold.train, fold.test[0])), task.splits.folds[1])
    )
    leaky = replace(task, splits=leaking)
    with pytest.raises(InputError, match=r"^Fold 0: Slide .* is in train .* or pass --allow-leak\.$"):
        run(leaky, kit, tmp_path, (kit.CE,), seeds=1)
    assert run(leaky, kit, tmp_path, (kit.CE,), seeds=1, allow_leak=True).failures == ()
    lacking = replace(fold, train=tuple(s for s in fold.train if task.cohort.by_slide[s].label != "beta"))
    leaky = replace(task, splits=replace(task.splits, folds=(lacking,)))
    with pytest.raises(InputError, match="class beta has no slide in train; make the splits again"):
        run(leaky, kit, tmp_path / "b", (kit.CE,), seeds=1, allow_leak=True)
