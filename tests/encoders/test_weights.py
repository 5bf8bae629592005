from __future__ import annotations

import os

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.encoders.encoder_files import find_weights
from wsi_ncmi.encoders.weights import load_strictly, read_weights, state_sha256
from wsi_ncmi.encoders.weights_choice import choose_weights


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def _load(network, state, tmp_path, head=("fc.",)):
    load_strictly(network, state, head=head, path=tmp_path / "w.pt", name="torchvision:tiny")


def test_same_tensors_same_hash_from_either_format(network, tmp_path):
    state = network.state_dict()
    save_file(state, tmp_path / "a.safetensors")
    torch.save(
        {"state_dict": {f"module.model.{key}": value for key, value in state.items()}}, tmp_path / "b.pth"
    )
    hashes = set()
    for name in ("a.safetensors", "b.pth"):
        other = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        assert state_sha256(other) != state_sha256(network)
        loaded, _ = choose_weights(tmp_path / name, other, head=(), name="tiny")
        _load(other, {**loaded, "fc.weight": torch.zeros(2)}, tmp_path)
        hashes.add(state_sha256(other))
    assert hashes == {state_sha256(network)}


def test_hash_sees_values_names_and_shapes():
    def digest(**tensors):
        module = nn.Module()
        for name, tensor in tensors.items():
            module.register_buffer(name, tensor)
        return state_sha256(module)

    base = digest(a=torch.ones(4))
    others = (
        digest(b=torch.ones(4)),
        digest(a=torch.ones(2, 2)),
        digest(a=torch.ones(4).double()),
        digest(a=torch.tensor([1, 1, 1, 2.0])),
    )
    assert len({base, *others}) == 5
    assert digest(a=torch.ones(4, dtype=torch.bfloat16)) != base  # a type numpy does not know


def test_only_the_head_may_be_left_over(network, tmp_path):
    state = dict(network.state_dict())
    del state["1.num_batches_tracked"]
    _load(network, {**state, "fc.weight": torch.zeros(1)}, tmp_path)
    with pytest.raises(InputError, match=r"of 6 tensors needed, 1 unexpected \(extra\.weight\)"):
        _load(network, {**state, "extra.weight": torch.zeros(1)}, tmp_path)
    with pytest.raises(InputError, match=r"2 missing \(0\.bias, 0\.weight\)"):
        _load(network, {key: value for key, value in state.items() if not key.startswith("0")}, tmp_path)
    with pytest.raises(InputError, match=r"1 of another shape \(0\.bias\)"):
        _load(network, {**state, "0.bias": torch.zeros(5)}, tmp_path)


def test_a_failed_load_leaves_the_network_as_it_was(network, tmp_path):
    before = state_sha256(network)
    with pytest.raises(InputError):
        _load(network, {"0.weight": torch.zeros(4, 3, 3, 3)}, tmp_path)
    assert state_sha256(network) == before


class _Evil:
    def __reduce__(self):
        return os.mkdir, (os.environ["WSI_NCMI_EVIL"],)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, monkeypatch):
    planted = tmp_path / "planted"
    monkeypatch.setenv("WSI_NCMI_EVIL", str(planted))
    torch.save({"0.weight": _Evil()}, tmp_path / "evil.pt")
    with pytest.raises(InputError, match="could run code when loaded") as caught:
        read_weights(tmp_path / "evil.pt")
    assert "\n" not in str(caught.value)
    assert not planted.exists()


@pytest.mark.parametrize("name", ["a.pt", "a.bin", "a.safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"not weights at all, only text", b"slide_id,label\na,b\n", b"\x80\x02]q", bytes(64)]
)
def test_damaged_files_are_one_sentence(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match="weights file") as caught:
        read_weights(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [{}, [torch.ones(1)], torch.ones(2), {"a": torch.ones(1), "epoch": 3}])
def test_files_without_plain_named_tensors_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(InputError, match="holds"):
        read_weights(tmp_path / "a.pt")


class TestFindWeights:
    def _touch(self, folder, *names):
        for name in names:
            (folder / name).touch()

    def test_a_file_is_taken_as_it_is(self, tmp_path):
        self._touch(tmp_path, "anything.pth")
        assert find_weights(tmp_path / "anything.pth", "resnet18").name == "anything.pth"

    @pytest.mark.parametrize(
        "name",
        ["resnet18.safetensors", "resnet18_imagenet.pt", "resnet18-5c106cde.pth", "resnet18.a1_in1k.bin"],
    )
    def test_one_file_of_the_models_name(self, tmp_path, name):
        self._touch(tmp_path, name, "resnet18d_other.pt", "resnet50.pt", "notes.txt", "model.safetensors")
        assert find_weights(tmp_path, "resnet18").name == name
        assert find_weights(tmp_path, "resnet18.a1_in1k").name == name

    def test_the_exact_name_wins(self, tmp_path):
        self._touch(tmp_path, "vit_b_16.pt", "vit_b_16_384.pt")
        assert find_weights(tmp_path, "vit_b_16").name == "vit_b_16.pt"

    def test_hub_layout(self, tmp_path):
        self._touch(tmp_path, "pytorch_model.bin")
        assert find_weights(tmp_path, "x").name == "pytorch_model.bin"
        self._touch(tmp_path, "model.safetensors")
        assert find_weights(tmp_path, "x").name == "model.safetensors"

    def test_none_or_several_name_the_candidates(self, tmp_path):
        with pytest.raises(InputError, match="no weights file"):
            find_weights(tmp_path, "resnet18")
        self._touch(tmp_path, "resnet50.pt")
        with pytest.raises(InputError, match=r"no weights for resnet18 \(it holds resnet50\.pt\)"):
            find_weights(tmp_path, "resnet18")
        self._touch(tmp_path, "resnet18_a.pt", "resnet18_b.pt")
        with pytest.raises(
            InputError, match=r"2 weights files for resnet18 \(resnet18_a\.pt, resnet18_b\.pt\)"
        ):
            find_weights(tmp_path, "resnet18")
        with pytest.raises(InputError, match="no weights file or folder"):
            find_weights(tmp_path / "absent", "resnet18")
