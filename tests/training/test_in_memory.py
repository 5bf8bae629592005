"""A run in memory is the run on disk."""

from __future__ import annotations

import numpy as np
import torch

from wsi_ncmi.losses import loss_config
from wsi_ncmi.training import BagCache, LabelledSlides, RunConfig, fit, fit_in_memory


def test_it_equals_the_run_on_disk_and_writes_nothing(task, kit, tmp_path, monkeypatch):
    cache = BagCache(task.source, 2**20)
    index, rows = task.cohort.class_index, task.cohort.by_slide

    def part(slide_ids):
        return LabelledSlides(slide_ids, np.array([index[rows[s].label] for s in slide_ids]))

    loss = loss_config(name="ncmi", power=0.5)
    written = fit(
        cache,
        task.fold,
        task.cohort,
        RunConfig(model=kit.MODEL, loss=loss, training=kit.QUICK, seed=3),
        out=tmp_path / "run",
    )
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    found = fit_in_memory(cache, part(task.fold.train), part(task.fold.validation), 3, RunConfig(model=kit.MODEL, loss=loss, training=kit.QUICK, seed=3))  # fmt: skip
    assert not list(empty.iterdir())
    assert found.best_epoch == written.best_epoch
    assert [row["train_loss"] for row in found.curves] == [row["train_loss"] for row in written.curves]
    for module, twin in (
        (found.aggregator, written.model.aggregator),
        (found.criterion, written.model.criterion),
    ):
        assert not module.training
        for name, tensor in twin.state_dict().items():
            assert torch.equal(module.state_dict()[name], tensor), name


def test_wrong_labels_are_what_is_learned(task, kit):
    """Labels given to the function stand over the cohort's: rotated ones teach rotated classes."""
    cache = BagCache(task.source, 2**20)
    index, rows = task.cohort.class_index, task.cohort.by_slide
    ids = task.cohort.slide_ids
    truth = np.array([index[rows[s].label] for s in ids])
    rotated = LabelledSlides(tuple(ids), (truth + 1) % 3)
    from dataclasses import replace

    from wsi_ncmi.training.scoring import embed, probabilities_of

    options = replace(kit.QUICK, epochs=20, learning_rate=1e-2)
    found = fit_in_memory(
        cache, rotated, rotated, 3, RunConfig(model=kit.MODEL, loss=loss_config(name="ce"), training=options)
    )
    z = embed(found.aggregator, cache, ids, torch.device("cpu"))
    predicted = probabilities_of(found.criterion, z).argmax(axis=1)
    assert (predicted == rotated.y).mean() > 0.9
