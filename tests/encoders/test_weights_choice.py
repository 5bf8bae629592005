"""Weights as training code saves them: the one network in the file is found, everything else is named."""

from __future__ import annotations

import argparse
import logging
import random

import numpy as np
import pytest
import torch

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.encoders import EncoderConfig, load_encoder
from wsi_ncmi.encoders.timm_models import headless_timm
from wsi_ncmi.encoders.weights_choice import choose_weights
from wsi_ncmi.encoders.weights_import import import_weights

NAME = "test_vit"


@pytest.fixture(scope="module")
def network():
    return headless_timm(NAME).model


@pytest.fixture(scope="module")
def state(network):
    generator = torch.Generator().manual_seed(1)
    return {key: torch.randn(value.shape, generator=generator) for key, value in network.state_dict().items()}


def _under(prefix, state):
    return {prefix + key: value for key, value in state.items()}


def _other(state):
    return {key: value + 1 for key, value in state.items()}


def _choose(content, network, tmp_path):
    torch.save(content, tmp_path / "w.pth")
    return choose_weights(tmp_path / "w.pth", network, head=("head.",), name=f"timm:{NAME}")


def _is(found, state):
    return found.keys() == state.keys() and all(torch.equal(found[key], state[key]) for key in state)


HEAD = {"weight": torch.ones(3, 2), "bias": torch.ones(3)}
CONTENTS = {
    # name → (what the file holds, words of the note)
    "plain": (lambda s: s, []),
    "torch.compile": (lambda s: _under("_orig_mod.", s), ["prefix _orig_mod."]),
    "torch.compile of the blocks": (
        lambda s: {key.replace("blocks.0.", "blocks.0._orig_mod."): value for key, value in s.items()},
        ["prefix _orig_mod."],
    ),
    "dino": (
        lambda s: {
            "student": _under("module.backbone.", _other(s)) | _under("module.head.", HEAD),
            "teacher": _under("backbone.", s) | _under("head.", HEAD),
            "optimizer": {"state": {0: {"step": 3, "exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1.0}]},
            "epoch": 100,
            "args": argparse.Namespace(arch="vit_small", lr=0.1),
            "dino_loss": {"center": torch.zeros(1, 3)},
        },
        ["dictionary teacher", "prefix backbone.", "head (2 tensors)", "student (", "dino_loss (1 tensor)"],
    ),
    "dinov2 teacher": (
        lambda s: {
            "teacher": _under("backbone.", s)
            | {"backbone.mask_token": torch.ones(1, 4)}
            | _under("dino_head.mlp.", HEAD)
            | _under("ibot_head.", HEAD)
        },
        ["mask_token (1 tensor)", "dino_head (2 tensors)", "ibot_head (2 tensors)"],
    ),
    "dinov2 of both": (
        lambda s: {
            "model": _under("student.backbone.", _other(s))
            | _under("teacher.backbone.", s)
            | _under("teacher.dino_head.", HEAD),
            "iteration": 5,
        },
        ["dictionary model", "prefix teacher.backbone.", "student (", "teacher.dino_head (2 tensors)"],
    ),
    "lightning": (
        lambda s: {
            "epoch": 1, "pytorch-lightning_version": "2.0", "hyper_parameters": {"lr": 0.1},
            "callbacks": {"ModelCheckpoint": {"monitor": "loss", "best_model_score": torch.tensor(0.5)}},
            "state_dict": _under("net.", s) | {"criterion.weight": torch.ones(2)},
        },
        ["prefix net.", "criterion (1 tensor)"],
    ),
    "lightning of a compiled net": (
        lambda s: {"state_dict": _under("model._orig_mod.", s) | {"loss_fn.weight": torch.ones(2)}},
        ["_orig_mod.", "model.", "loss_fn"],
    ),
    "moco": (
        lambda s: {
            "epoch": 200, "arch": "vit",
            "state_dict": _under("module.encoder_q.", s)
            | _under("module.encoder_q.head.0.", HEAD)
            | _under("module.encoder_k.", _other(s))
            | {"module.queue": torch.ones(2, 4), "module.queue_ptr": torch.zeros(1)},
        },
        ["prefix module.encoder_q.", "module.encoder_k (", "module.queue (1 tensor)"],
    ),
    "moco v3": (
        lambda s: {
            "state_dict": _under("module.base_encoder.", s)
            | _under("module.momentum_encoder.", _other(s))
            | _under("module.predictor.0.", HEAD)
        },
        ["prefix module.base_encoder.", "module.momentum_encoder (", "module.predictor (2 tensors)"],
    ),
    "projector": (
        lambda s: _under("encoder.", s) | _under("projection_head.2.", HEAD),
        ["prefix encoder.", "projection_head (2 tensors)"],
    ),
    "lightly": (
        lambda s: {
            "state_dict": _under("teacher_backbone.", s)
            | _under("student_backbone.", _other(s))
            | _under("student_head.", HEAD)
            | _under("teacher_head.", HEAD)
        },
        ["teacher_backbone.", "student_backbone ("],
    ),
    "a mean of the weights beside them": (
        lambda s: {"state_dict": s, "state_dict_ema": _other(s), "epoch": 3},
        ["dictionary state_dict", "state_dict_ema ("],
    ),
    "ibot": (
        lambda s: {
            "student": _under("module.backbone.", _other(s)) | {"module.backbone.masked_embed": torch.ones(1, 4)},
            "teacher": _under("backbone.", s) | {"backbone.masked_embed": torch.ones(1, 4)} | _under("head.", HEAD),
        },
        ["dictionary teacher", "backbone.masked_embed (1 tensor)"],
    ),
    "the visual tower of OpenCLIP": (
        lambda s: {
            "state_dict": _under("module.visual.trunk.", s)
            | _under("module.transformer.resblocks.0.", HEAD)
            | _under("module.token_embedding.", HEAD)
            | {"module.positional_embedding": torch.ones(2, 3), "module.text_projection": torch.ones(2, 2)}
            | {"module.logit_scale": torch.tensor(1.0)}
        },
        ["prefix module.visual.trunk.", "module.transformer (2 tensors)", "module.logit_scale (1 tensor)"],
    ),
    "the image encoder beside that of a text": (
        lambda s: _under("vision_model.", s) | _under("text_model.", HEAD) | {"logit_bias": torch.tensor(1.0)},
        ["prefix vision_model.", "text_model (2 tensors)"],
    ),
    "stochastic weight averaging": (
        lambda s: {
            "state_dict": _under("model.", s)
            | _under("swa_model.module.", _other(s))
            | {"swa_model.n_averaged": torch.tensor(3)}
        },
        ["prefix model.", "swa_model ("],
    ),
    "averaged alone": (lambda s: _under("module.", s) | {"n_averaged": torch.tensor(5)}, ["n_averaged"]),
    "measures and pixels": (
        lambda s: _under("backbone.", s)
        | {"val_auroc.tp": torch.ones(2), "data_preprocessor.mean": torch.ones(3), "bn.running_mean": torch.ones(3)},
        ["val_auroc", "data_preprocessor", "bn (1 tensor)"],
    ),
    "own criterion at the top": (lambda s: s | {"criterion.weight": torch.ones(2)}, ["criterion"]),
    "student alone": (lambda s: {"student": _under("module.", s)}, ["dictionary student"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", CONTENTS)
def test_training_checkpoints(kind, network, state, tmp_path, caplog):
    make, words = CONTENTS[kind]
    with caplog.at_level(logging.INFO, logger="wsi_ncmi"):
        found, note = _choose(make(state), network, tmp_path)
    assert _is(found, state)
    assert all(word in note for word in words), note
    assert bool(note) == bool(words)
    assert note in caplog.text


def test_any_nesting_of_known_prefixes(network, state, tmp_path):
    chance = random.Random(0)
    parts = (
        "module.",
        "model.",
        "_orig_mod.",
        "backbone.",
        "encoder.",
        "net.",
        "state_dict",
        "model_state_dict",
    )
    for _ in range(25):
        content = dict(state)
        nested = chance.choices(parts, k=chance.randint(1, 4))
        for part in nested:
            if part.endswith(".") and all(isinstance(value, torch.Tensor) for value in content.values()):
                content = _under(part, content)
            elif not part.endswith("."):
                content = {part: content, "epoch": 3}
        found, _ = _choose(content, network, tmp_path)
        assert _is(found, state), nested


REFUSED = {
    "quantised": (
        lambda s: {key: value.to(torch.int8) for key, value in s.items()},
        "whole numbers, or none, .*as quantised weights do",
    ),
    "without numbers": (lambda s: {key: value.to("meta") for key, value in s.items()}, "whole numbers, or none"),
    "two equal copies": (
        lambda s: _under("net_a.", s) | _under("net_b.", _other(s)),
        r"holds timm:test_vit 2 times \(net_a, net_b\)",
    ),
    "online and target": (
        lambda s: _under("online_encoder.", s) | _under("target_encoder.", _other(s)),
        r"2 times \(online_encoder, target_encoder\)",
    ),
    "two dictionaries": (lambda s: {"generator": s, "critic": _other(s)}, r"2 times \(generator, critic\)"),
    "a tensor is missing": (
        lambda s: _under("module.model.", {key: s[key] for key in s if key != "cls_token"}),
        r"does not fit timm:test_vit: of \d+ tensors needed, 1 missing \(cls_token\);",
    ),
    "another shape": (
        lambda s: _under("model.", s | {"cls_token": torch.ones(1, 1, 5)}),
        r"1 of another shape \(cls_token\)",
    ),
    "a deeper network": (
        lambda s: s | _under("blocks.99.", HEAD),
        r"2 unexpected \(blocks\.99\.bias, blocks\.99\.weight\)",
    ),
    "a deeper network under a prefix": (
        lambda s: _under("backbone.", s | _under("blocks.99.", HEAD)),
        "2 unexpected",
    ),
    "an unknown module beside it": (
        lambda s: _under("encoder.", s) | _under("stain_stem.", HEAD),
        r"beside it 2 tensors of no known use \(stain_stem\.weight, stain_stem\.bias\)",
    ),
    "the query encoder is incomplete": (
        lambda s: _under("encoder_q.", {key: s[key] for key in s if key != "cls_token"}) | _under("encoder_k.", _other(s)),
        "under encoder_k, and beside it .* of no known use",
    ),
    "a module and the plain names": (lambda s: s | _under("other.", _other(s)), r"2 times \(the file itself, other\)"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_ambiguous_or_incomplete_is_one_sentence(kind, network, state, tmp_path):
    make, words = REFUSED[kind]
    with pytest.raises(InputError, match=words) as caught:
        _choose(make(state), network, tmp_path)
    assert "\n" not in str(caught.value)


def test_features_are_those_of_the_plain_file_bit_for_bit(state, tmp_path):
    torch.save(state, tmp_path / "plain.pth")
    torch.save(CONTENTS["moco v3"][0](state), tmp_path / "moco.pth")
    made = import_weights(tmp_path / "moco.pth", f"timm:{NAME}", tmp_path / "folder")
    assert "left out: module.momentum_encoder" in made.notes[-1]
    tiles = np.random.default_rng(0).integers(0, 256, (2, 160, 160, 3), dtype=np.uint8)
    found = []
    for weights in (tmp_path / "plain.pth", tmp_path / "moco.pth", tmp_path / "folder"):
        encoder = load_encoder(
            EncoderConfig(name=f"timm:{NAME}", weights=weights, device="cpu", batch_size=2)
        )
        found.append((encoder.info.weights_sha256, encoder.encode(tiles).tobytes()))
    assert len(set(found)) == 1


def test_a_dictionary_that_holds_itself_is_no_endless_work(network, state, tmp_path):
    content: dict = {"epoch": 1}
    content["self"] = content
    with pytest.raises(InputError, match="no named tensors"):
        _choose(content, network, tmp_path)
