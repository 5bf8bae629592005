"""What a step is made of: accumulated batches, precision, the size of shares."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from tests.mil.settings import config_with
from wsi_ncmi.core.errors import InputError, TrainingError
from wsi_ncmi.losses import loss_config
from wsi_ncmi.mil import model_config
from wsi_ncmi.mil.config import VitConfig
from wsi_ncmi.training import LabelledSlides, RunConfig, fit, fit_in_memory
from wsi_ncmi.training.bags import BagCache
from wsi_ncmi.training.checkpoint import MODEL_WEIGHTS
from wsi_ncmi.training.fitting import build_modules

CALM = model_config(hidden=16, attention=8, dropout=0.0)


def run(task, kit, out, model=CALM, loss=None, **changes):
    training = replace(kit.QUICK, **changes)
    fit(
        task.source,
        task.fold,
        task.cohort,
        RunConfig(model=model, loss=loss or kit.CE, training=training),
        out=out,
    )
    return load_file(out / MODEL_WEIGHTS)


def test_accumulated_batches_equal_the_large_one(task, kit, tmp_path):
    """The 8 bags of a step are 3, 3 and 2: each bag must weigh the same."""
    large = run(task, kit, tmp_path / "large", batch_size=7, max_instances=5)
    parts = run(task, kit, tmp_path / "parts", batch_size=3, accumulate=3, max_instances=5)
    nine = run(task, kit, tmp_path / "nine", batch_size=9, max_instances=5)
    for name, expected in nine.items():
        torch.testing.assert_close(parts[name], expected, rtol=1e-3, atol=2e-4)
    assert any(not torch.allclose(nine[name], large[name], rtol=1e-2, atol=2e-3) for name in nine)


def test_bfloat16_is_near_float32_and_leaves_float32_weights(task, kit, tmp_path):
    full = run(task, kit, tmp_path / "full")
    half = run(task, kit, tmp_path / "half", precision="bf16")
    assert all(tensor.dtype == torch.float32 for tensor in half.values())
    assert any(not torch.equal(full[name], half[name]) for name in full)
    for name, expected in full.items():
        torch.testing.assert_close(half[name], expected, rtol=0.1, atol=0.02)


@pytest.mark.parametrize(
    "model", ["clam_mb", "dsmil", "transmil", "dtfd", "acmil", "aem", "asmil", "vit", "max"]
)
def test_every_model_goes_the_same_way_in_bfloat16(task, kit, tmp_path, model):
    # Without dropout, which is drawn otherwise in bfloat16.
    calm = config_with(model, dropout=0.0, vit=VitConfig(feed_forward_dropout=0.0))
    full, half = (
        run(task, kit, tmp_path / precision, calm, precision=precision, epochs=1)
        for precision in ("fp32", "bf16")
    )
    start, _ = build_modules(RunConfig(model=calm, loss=kit.CE), task.source.width, [1, 1, 1])
    way, apart = 0.0, 0.0
    for name, weight in start.state_dict().items():
        if weight.is_floating_point():
            assert half[f"aggregator.{name}"].dtype == torch.float32
            way += float((full[f"aggregator.{name}"] - weight).square().sum())
            apart += float((full[f"aggregator.{name}"] - half[f"aggregator.{name}"]).square().sum())
    assert 0 < apart < 0.25 * way


def test_float16_on_a_cpu_is_refused(task, kit, tmp_path):
    with pytest.raises(ValidationError, match="half precision is for a GPU"):
        run(task, kit, tmp_path, precision="fp16")


def test_the_patient_balanced_sampler_needs_patients(task, kit):
    part = LabelledSlides(task.fold.train, np.arange(len(task.fold.train)) % 3)
    with pytest.raises(InputError, match="needs to know the patient"):
        fit_in_memory(BagCache(task.source, 2**20), part, part, 3, RunConfig(model=CALM, loss=kit.CE, training=replace(kit.QUICK, sampler="patient_balanced")))  # fmt: skip


def test_a_fault_in_an_accumulated_batch_names_all_slides_of_the_step(task, kit, tmp_path, monkeypatch):
    pack = BagCache.pack

    def faulty(self, slide_ids, rows=None):
        batch = pack(self, slide_ids, rows)
        if task.fold.train[5] in slide_ids:
            batch.features[0, 0] = float("nan")
        return batch

    monkeypatch.setattr(BagCache, "pack", faulty)
    with pytest.raises(
        TrainingError, match=rf"epoch 1, step \d+: the loss is nan .*{task.fold.train[5]}"
    ) as caught:
        run(task, kit, tmp_path, batch_size=2, accumulate=3)
    assert str(caught.value).count("slide_") == 6


def test_reading_ahead_changes_nothing(task, kit, tmp_path):
    """Without room to keep bags they are read by another thread, one batch ahead."""
    kept = run(task, kit, tmp_path / "kept", kit.MODEL)
    read = run(task, kit, tmp_path / "read", kit.MODEL, cache_mib=0)
    for name, expected in kept.items():
        assert torch.equal(read[name], expected), name


@pytest.mark.parametrize(
    "loss", [loss_config(name="ncmi"), loss_config(name="weighted_ce")], ids=lambda x: x.name
)
def test_other_losses_accumulate_too(task, kit, tmp_path, loss):
    parts = run(task, kit, tmp_path / "parts", loss=loss, batch_size=3, accumulate=3, max_instances=5)
    nine = run(task, kit, tmp_path / "nine", loss=loss, batch_size=9, max_instances=5)
    for name, expected in nine.items():
        torch.testing.assert_close(parts[name], expected, rtol=1e-3, atol=5e-4)
