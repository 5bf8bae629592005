from __future__ import annotations

from dataclasses import replace

import pytest

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.training import RunConfig, fit
from wsi_ncmi.training.curves import TENSORBOARD
from wsi_ncmi.training.loop import TrainingLoop


def run(task, kit, out, **changes):
    training = replace(kit.QUICK, tensorboard=True, **changes)
    return fit(
        task.source,
        task.fold,
        task.cohort,
        RunConfig(model=kit.MODEL, loss=kit.CE, training=training),
        out=out,
    )


def scalars(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(folder / TENSORBOARD))
    board.Reload()
    return {tag: {e.step: e.value for e in board.Scalars(tag)} for tag in board.Tags()["scalars"]}


def test_the_events_are_the_curves_also_of_a_run_that_was_cut_off(task, kit, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    close = TrainingLoop._close_epoch

    def cut(self):
        close(self)
        if len(self.curves) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(TrainingLoop, "_close_epoch", cut)
    with pytest.raises(KeyboardInterrupt):
        run(task, kit, tmp_path, checkpoint_interval_s=0.0)
    monkeypatch.undo()
    result = run(task, kit, tmp_path, checkpoint_interval_s=0.0)
    found = scalars(tmp_path)
    for tag, name in {
        "validation/macro_f1": "val_macro_f1", "train/loss": "train_loss", "train/lr": "lr", "train/seconds": "seconds",
    }.items():  # fmt: skip
        wanted = {int(row["epoch"]): row[name] for row in result.curves}
        assert found[tag] == pytest.approx(wanted, rel=1e-6), tag


def test_without_the_package_it_is_said_before_anything_starts(task, kit, tmp_path, without):
    without("tensorboard")
    with pytest.raises(InputError, match=r'needs tensorboard.*pip install "wsi-ncmi\[tensorboard\]"'):
        run(task, kit, tmp_path / "run")
    assert not (tmp_path / "run").exists()
