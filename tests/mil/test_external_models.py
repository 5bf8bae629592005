"""Checkpoints of CLAM, DSMIL and TransMIL: equal answers, strict names, nothing executed."""

from __future__ import annotations

import pickle

import pytest
import torch
from safetensors.torch import save_file

from tests.mil.peers import PeerAbmil, PeerClam, PeerDsmil, PeerTransMil
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.mil import BagBatch, import_checkpoint

D = 5


def _peer(kind: str):
    torch.manual_seed(0)
    if kind.startswith("clam"):
        several, gated, early = ("mb" in kind), ("plain" not in kind), ("early" in kind)
        return PeerClam(D, 3, several=several, gated=gated, early=early)
    if kind.startswith("abmil"):
        return PeerAbmil(D, 3, gated=kind == "abmil")
    if kind == "transmil":
        return PeerTransMil(D, 4, dim=16, heads=8)
    value = {"dsmil": "identity", "dsmil relu": "relu", "dsmil linear": "linear"}[kind]
    return PeerDsmil(D, 3, value=value, nonlinear=value != "linear")


KINDS = [
    "clam sb", "clam mb", "clam sb plain", "clam mb plain", "clam sb early", "clam mb plain early",
    "dsmil", "dsmil relu", "dsmil linear", "transmil", "abmil", "abmil plain",
]  # fmt: skip
# The names that the published classes give, written out from their source.
PUBLISHED = {
    "clam sb": {
        "attention_net.0.weight", "attention_net.0.bias", "attention_net.3.attention_a.0.weight",
        "attention_net.3.attention_a.0.bias", "attention_net.3.attention_b.0.weight",
        "attention_net.3.attention_b.0.bias", "attention_net.3.attention_c.weight",
        "attention_net.3.attention_c.bias", "classifiers.weight", "classifiers.bias",
        *(f"instance_classifiers.{c}.{p}" for c in range(3) for p in ("weight", "bias")),
    },
    "clam mb plain": {
        "attention_net.0.weight", "attention_net.0.bias", "attention_net.3.module.0.weight",
        "attention_net.3.module.0.bias", "attention_net.3.module.3.weight", "attention_net.3.module.3.bias",
        *(f"classifiers.{c}.{p}" for c in range(3) for p in ("weight", "bias")),
        *(f"instance_classifiers.{c}.{p}" for c in range(3) for p in ("weight", "bias")),
    },
    "dsmil relu": {
        "i_classifier.fc.0.weight", "i_classifier.fc.0.bias", "b_classifier.q.0.weight",
        "b_classifier.q.0.bias", "b_classifier.q.2.weight", "b_classifier.q.2.bias",
        "b_classifier.v.1.weight", "b_classifier.v.1.bias", "b_classifier.fcc.weight", "b_classifier.fcc.bias",
    },
    "dsmil linear": {
        "i_classifier.fc.0.weight", "i_classifier.fc.0.bias", "b_classifier.q.weight", "b_classifier.q.bias",
        "b_classifier.v.1.weight", "b_classifier.v.1.bias", "b_classifier.fcc.weight", "b_classifier.fcc.bias",
    },
    "abmil": {
        *(f"patch_embed.0.{p}" for p in ("weight", "bias")), *(f"classifier.{p}" for p in ("weight", "bias")),
        *(f"global_attn.{n}.{p}" for n in ("attention_a.0", "attention_b.0", "attention_c")
          for p in ("weight", "bias")),
    },
    "transmil": {
        "cls_token", "_fc1.0.weight", "_fc1.0.bias", "norm.weight", "norm.bias", "_fc2.weight", "_fc2.bias",
        *(f"pos_layer.{n}.{p}" for n in ("proj", "proj1", "proj2") for p in ("weight", "bias")),
        *(f"layer{i}.{n}" for i in (1, 2) for n in (
            "norm.weight", "norm.bias", "attn.to_qkv.weight", "attn.to_out.0.weight", "attn.to_out.0.bias",
            "attn.res_conv.weight",
        )),
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", PUBLISHED)
def test_the_plain_peers_have_the_published_names(kind):
    assert set(_peer(kind).state_dict()) == PUBLISHED[kind]


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_imported_model_answers_as_the_peer(tmp_path, kind, wrapped):
    peer = _peer(kind)
    path = tmp_path / "s_0_checkpoint.pt"
    state = peer.state_dict()
    if kind.startswith("abmil") and wrapped:  # as MIL-Lab publishes them
        path = tmp_path / "model.safetensors"
        save_file({f"model.{name}": value for name, value in state.items()}, path)
    elif wrapped:  # as Lightning and DataParallel write
        state = {"epoch": 3, "state_dict": {f"model.{name}": value for name, value in state.items()}}
    if path.suffix == ".pt":
        torch.save(state, path)
    model = import_checkpoint(path)
    assert model.num_classes == (4 if kind == "transmil" else 3)
    bags = [torch.randn(n, D) for n in (1, 7, 12)]
    with torch.no_grad():
        found = model.head(model.aggregator(BagBatch.pack(bags)).embedding)
        expected = torch.stack([peer(bag)[0] for bag in bags])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert not model.aggregator.training
    assert model.config.name == kind.split()[0] + (
        "_" + kind.split()[1] if kind.startswith(("clam", "abmil ")) else ""
    )


def _compiled(state):
    """torch.compile of the modules inside, and of the whole under Lightning."""
    inner = {name.replace("attention_net.", "attention_net._orig_mod.", 1): t for name, t in state.items()}
    return {f"model._orig_mod.{name}": t for name, t in inner.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        _compiled,
        lambda state: {f"model.module.{name}": t for name, t in state.items()},
        lambda state: {f"module._orig_mod.model.net.{name}": t for name, t in state.items()},
        lambda state: {n.replace("attention_net.", "attention_net.module.", 1): t for n, t in state.items()},
        lambda state: state | {"criterion.weight": torch.ones(3)},
        lambda state: {f"model.{n}": t for n, t in state.items()} | {"loss_fn.pos_weight": torch.ones(3)},
        lambda state: (
            state | {"instance_loss_fn.labels": torch.ones(3), "val_loss.criterion.w": torch.ones(1)}
        ),
    ],
)
@pytest.mark.parametrize("kind", ["clam sb", "clam mb plain"])
def test_what_training_code_puts_around_a_model_is_taken_off(tmp_path, caplog, kind, wrap):
    state = _peer(kind).state_dict()
    torch.save(state, tmp_path / "plain.pt")
    torch.save({"state_dict": wrap(state)}, tmp_path / "wrapped.pt")
    plain = import_checkpoint(tmp_path / "plain.pt")
    with caplog.at_level("INFO", logger="wsi_ncmi"):
        found = import_checkpoint(tmp_path / "wrapped.pt")
    for part in ("aggregator", "head"):
        expected, given = (getattr(each, part).state_dict() for each in (plain, found))
        assert all(torch.equal(given[name], expected[name]) for name in expected)
    extra = [name for name in wrap(state) if "criterion" in name or "loss" in name]
    assert all(name in caplog.text for name in extra)


def test_a_state_of_losses_alone_or_of_a_name_twice_is_refused(tmp_path):
    torch.save({"criterion.weight": torch.ones(2)}, tmp_path / "loss.pt")
    with pytest.raises(InputError, match=r"begins with 'criterion\.weight'"):
        import_checkpoint(tmp_path / "loss.pt")
    state = _peer("clam sb").state_dict()
    twice = state | {f"_orig_mod.{name}": t + 1 for name, t in state.items()}
    torch.save(twice, tmp_path / "twice.pt")
    with pytest.raises(InputError, match="without a place here"):
        import_checkpoint(tmp_path / "twice.pt")


def test_what_follows_the_value_layer_can_be_said(tmp_path):
    path = tmp_path / "dsmil.pth"
    torch.save(_peer("dsmil relu").state_dict(), path)
    assert import_checkpoint(path).config.dsmil.value == "relu"
    assert import_checkpoint(path, dsmil_value="linear").config.dsmil.value == "linear"


@pytest.mark.parametrize("kind", KINDS)
def test_every_missing_or_added_tensor_is_refused(tmp_path, kind):
    path, state = tmp_path / "checkpoint.pt", _peer(kind).state_dict()
    for name in state:
        torch.save({n: t for n, t in state.items() if n != name}, path)
        with pytest.raises(InputError) as error:
            import_checkpoint(path)
        assert str(path) in str(error.value)
    torch.save({**state, "encoder.layer.weight": torch.zeros(2)}, path)
    with pytest.raises(InputError, match=r"holds 1 tensors without a place here \(encoder.layer.weight\)"):
        import_checkpoint(path)


def test_another_shape_is_refused(tmp_path):
    path, state = tmp_path / "checkpoint.pt", _peer("clam sb").state_dict()
    torch.save({**state, "classifiers.weight": torch.zeros(3, 9)}, path)
    with pytest.raises(
        InputError, match=r"'classifiers.weight' has the shape \(3, 9\) where any × 6 is expected"
    ):
        import_checkpoint(path)


class _Harmful:
    def __reduce__(self):
        return (print, ("executed",))


def test_files_that_are_no_plain_tensors_are_refused(tmp_path, capsys):
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(InputError, match="There is no checkpoint"):
        import_checkpoint(path)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="can't be read as a checkpoint of plain tensors"):
        import_checkpoint(path)
    torch.save({"attention_net.0.weight": _Harmful()}, path)
    with pytest.raises(InputError, match="can't be read as a checkpoint of plain tensors"):
        import_checkpoint(path)
    path.write_bytes(pickle.dumps(_Harmful(), protocol=2))
    with pytest.raises(InputError, match="can't be read as a checkpoint"):
        import_checkpoint(path)
    assert "executed" not in capsys.readouterr().out
    torch.save([torch.zeros(2)], path)
    with pytest.raises(InputError, match="holds no state_dict"):
        import_checkpoint(path)
    torch.save({"layer.weight": torch.zeros(2)}, path)
    with pytest.raises(
        InputError,
        match=r"no checkpoint of CLAM, DSMIL, TransMIL or MIL-Lab's ABMIL \(it begins with 'layer.weight'",
    ):
        import_checkpoint(path)
