from __future__ import annotations

import dataclasses

import pytest
import torch
from safetensors.torch import save_file

from wsi_ncmi.encoders import EncoderConfig
from wsi_ncmi.encoders.architectures import build_architecture
from wsi_ncmi.encoders.presets import presets
from wsi_ncmi.encoders.weights_folder import (
    describe_preset,
    find_weights_folder,
    list_presets,
    resolve_weights,
    verify_weights_folder,
)
from wsi_ncmi.encoders.weights_import import import_weights


@pytest.fixture
def held(tmp_path, monkeypatch):
    preset = presets()["virchow2"]
    arguments = {**preset.architecture.arguments, "depth": 1, "embed_dim": 32, "num_heads": 2}
    architecture = dataclasses.replace(preset.architecture, arguments=arguments)
    monkeypatch.setitem(presets(), "virchow2", dataclasses.replace(preset, architecture=architecture))
    network = build_architecture(architecture)
    save_file(
        {key: torch.ones(value.shape) for key, value in network.state_dict().items()},
        tmp_path / "a.safetensors",
    )
    import_weights(tmp_path / "a.safetensors", "virchow2", tmp_path / "w")
    return tmp_path / "w"


def test_states(held, tmp_path):
    states = {row["key"]: row["state"] for row in list_presets(held)}
    assert {key for key, state in states.items() if state == "here"} == {"virchow2", "virchow2-cls"}
    assert states["uni_v1"] == "missing"
    assert {row["state"] for row in list_presets(None)} == {"no folder"}
    assert {row["state"] for row in list_presets(tmp_path / "absent")} == {"missing"}


def test_description_has_the_weights_that_are_here(held):
    facts = describe_preset("virchow2-cls", held)
    assert facts["weights"]["file"] == "virchow2.safetensors"
    assert facts["unverified"]
    assert describe_preset("uni_v1", held)["weights"] is None
    assert describe_preset("uni_v1", None)["weights"] is None


def test_verification(held):
    ((entry, problem),) = verify_weights_folder(held)
    assert (entry.file, entry.encoder, problem) == ("virchow2.safetensors", "virchow2", "")
    (held / "virchow2.safetensors").write_bytes(b"")
    assert "0 bytes" in verify_weights_folder(held)[0][1]


def test_the_folder_comes_from_the_environment(held, monkeypatch, tmp_path):
    monkeypatch.setenv("WSI_NCMI_WEIGHTS", str(held))
    assert find_weights_folder(None) == held
    assert find_weights_folder(tmp_path) == tmp_path
    monkeypatch.delenv("WSI_NCMI_WEIGHTS")
    assert find_weights_folder(None) is None


@pytest.mark.parametrize(
    ("name", "looks"),
    [
        ("virchow2", True),
        ("timm:resnet18", True),
        ("torchscript:a.pt", True),
        ("descriptor", False),
    ],
)
def test_extraction_looks_into_the_folder(held, name, looks):
    options = resolve_weights(EncoderConfig(name=name), held)
    assert options.weights == (held if looks else None)
