"""Identities and models that version 0.1 wrote, with the settings of every loss and every model."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict

import pytest

from wsi_ncmi.core.config import read_config, to_yaml
from wsi_ncmi.losses import loss_config
from wsi_ncmi.mil import model_config
from wsi_ncmi.training import TrainingConfig
from wsi_ncmi.training.resume import as_written_now, first_difference
from wsi_ncmi.workflows.config import JobConfig

NCMI = (
    "symbols temperature symbol_map code_words code_scale means_update means_momentum bank_size ratio power "
    "separation direction tau centring normalise decision_means balance prior_shift decision_balance"
)
LOSS = {
    "name": "ncmi", "preset": "default", **dict.fromkeys(NCMI.split()), "ridge": 20.0, "focal_gamma": 2.0,
    "label_smoothing": 0.1, "poly_epsilon": 1.0, "square_scale": 1.0, "square_target": 1.0,
    "contrastive_temperature": 0.1, "contrastive_weight": 1.0, "opl_weight": 1.0, "opl_gamma": 0.5,
    "cmi_weight": 0.5, "gamma_weight": 0.1,
}  # fmt: skip
MODEL = {
    "name": "abmil", "hidden": None, "attention": None, "dropout": None, "input_dropout": 0.0,
    "feature_dropout": 0.0, "mixup": 0.0, "standardise": False,
    "clam": {"gated": True, "k_sample": 8, "subtyping": False, "instance_loss": "svm", "instance_weight": 3 / 7},
    "dsmil": {
        "query": "nonlinear", "query_width": 128, "value": "identity", "value_dropout": 0.0,
        "instance_loss": "bce", "instance_weight": 1.0,
    },
    "transmil": {"heads": 8, "landmarks": None, "pinv_iterations": 6, "residual_kernel": 33},
    "dtfd": {
        "pseudo_bags": 4, "distillation": "afs", "instances": 1, "first_tier_weight": 1.0, "joint": False,
    },
    "acmil": {
        "branches": 5, "masked": 10, "mask_share": 0.6, "branch_weight": 1.0, "diversity_weight": 1.0,
    },
    "aem": {"entropy_weight": 0.1},
    "asmil": {
        "tokens": 8, "dropped": 4, "heads": 8, "anchor_weight": 1.0, "anchor_decay": 0.999, "temperature": 0.5,
    },
    "vit": {"layers": 2, "heads": 8, "feed_forward": 512, "feed_forward_dropout": 0.5, "alibi": False},
}  # fmt: skip


@pytest.mark.parametrize("loss", ["ncmi", "ce", "focal", "square", "cmic"])
@pytest.mark.parametrize("model", ["abmil", "mean", "clam_mb", "dsmil", "vit"])
def test_a_run_of_0_1_is_the_run_of_now(loss, model):
    there = {"loss": {**LOSS, "name": loss}, "model": {**MODEL, "name": model}, "seed": 0}
    wanted = {"loss": asdict(loss_config(loss)), "model": asdict(model_config(model)), "seed": 0}
    assert first_difference(json.loads(json.dumps(there)), wanted) == ""
    assert as_written_now(there) == wanted


def test_what_had_an_effect_still_tells_runs_apart():
    there = {"loss": {**LOSS, "power": 0.5}, "model": copy.deepcopy(MODEL)}
    wanted = {"loss": asdict(loss_config("ncmi")), "model": asdict(model_config("abmil"))}
    assert first_difference(there, wanted) == "loss.power is 0.5 there and None now"
    there = {"loss": LOSS, "model": {**MODEL, "name": "vit", "hidden": 256}}
    wanted = {"loss": asdict(loss_config("ncmi")), "model": asdict(model_config("vit"))}
    assert first_difference(there, wanted) == "model.hidden is 256 there and None now"


def test_the_batch_that_a_version_chose_is_not_another_run():
    there = {"training": {"batch_size": 16}}
    assert first_difference(there, {"training": TrainingConfig().identity()}) == ""
    told = {"training": TrainingConfig(batch_size=8).identity()}
    assert first_difference(there, told) == "training.batch_size is 16 there and 8 now"


def test_an_identity_that_cannot_be_read_is_another_run():
    wanted = {"loss": asdict(loss_config("ncmi"))}
    assert "loss.name is nmci there" in first_difference({"loss": {**LOSS, "name": "nmci"}}, wanted)
    assert "loss.sharpness is 3 there" in first_difference(
        {"loss": {**wanted["loss"], "sharpness": 3}}, wanted
    )


def test_models_and_job_files_of_0_1_are_read(tmp_path):
    assert model_config(**{**MODEL, "name": "mean"}) == model_config("mean")
    assert loss_config(**{**LOSS, "name": "focal", "focal_gamma": 3.0}) == loss_config(
        "focal", focal_gamma=3.0
    )
    file = tmp_path / "job.yaml"
    file.write_text(json.dumps({"model": MODEL, "losses": [LOSS, {**LOSS, "name": "ce"}]}))
    config = read_config(JobConfig, file, overrides=["losses.0.name=focal"])
    assert [asdict(loss) for loss in config.losses] == [asdict(loss_config("focal")), {"name": "ce"}]
    assert "k_sample" not in to_yaml(config)
