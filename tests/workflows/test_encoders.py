from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.encoders import EncoderConfig
from wsi_ncmi.encoders.architectures import build_architecture
from wsi_ncmi.encoders.presets import presets
from wsi_ncmi.encoders.registry import resolve_weights
from wsi_ncmi.workflows.encoders import (
    describe_preset,
    fetch_encoder,
    import_encoder,
    list_presets,
    preset_table,
    verify_encoders,
    weights_folder,
)

DOCS = Path(__file__).parents[2] / "docs" / "encoders.md"


def test_the_documented_table_is_the_registry():
    _, _, rest = DOCS.read_text(encoding="utf-8").partition("<!-- presets: begin")
    table = rest.partition("-->\n")[2].partition("<!-- presets: end -->")[0]
    assert table.strip() == preset_table().strip(), (
        "write it anew: print(wsi_ncmi.workflows.encoders.preset_table())"
    )
    assert all(f"| `{key}` |" in table for key in presets())


def test_a_licence_that_forbids_commerce_stands_out():
    rows = {line.split("|")[1].strip(" `"): line for line in preset_table().splitlines()[2:]}
    assert "| **CC-BY-NC-ND-4.0" in rows["uni_v1"]
    assert "| Apache-2.0 |" in rows["hoptimus0"]
    assert "| 1,134,774,272 |" in rows["hoptimus0"]


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
    import_encoder(tmp_path / "a.safetensors", "virchow2", tmp_path / "w", overwrite=False)
    return tmp_path / "w"


def test_states(held, tmp_path):
    states = {state.key: state.state for state in list_presets(held)}
    assert {key for key, state in states.items() if state == "here"} == {"virchow2", "virchow2-cls"}
    assert states["uni_v1"] == "missing"
    assert {state.state for state in list_presets(None)} == {"no folder"}
    assert {state.state for state in list_presets(tmp_path / "absent")} == {"missing"}


def test_description_has_the_weights_that_are_here(held):
    facts = describe_preset("virchow2-cls", held)
    assert facts["weights"]["file"] == "virchow2.safetensors"
    assert facts["unverified"]
    assert describe_preset("uni_v1", held)["weights"] is None
    assert describe_preset("uni_v1", None)["weights"] is None


def test_verification(held):
    assert verify_encoders(held) == (
        {"file": "virchow2.safetensors", "encoder": "virchow2", "ok": True, "problem": ""},
    )
    (held / "virchow2.safetensors").write_bytes(b"")
    assert "0 bytes" in verify_encoders(held)[0]["problem"]


def test_the_folder_comes_from_the_environment(held, monkeypatch, tmp_path):
    monkeypatch.setenv("WSI_NCMI_WEIGHTS", str(held))
    assert weights_folder(None) == held
    assert weights_folder(tmp_path) == tmp_path
    monkeypatch.delenv("WSI_NCMI_WEIGHTS")
    assert weights_folder(None) is None
    for act in (
        lambda: verify_encoders(None),
        lambda: fetch_encoder("uni_v1", None, revision=None, overwrite=False),
        lambda: import_encoder(tmp_path / "a", "uni_v1", None, overwrite=False),
    ):
        with pytest.raises(InputError, match="set WSI_NCMI_WEIGHTS or give --weights-dir"):
            act()


@pytest.mark.parametrize(
    ("name", "looks"),
    [
        ("virchow2", True),
        ("timm:resnet18", True),
        ("torchscript:a.pt", True),
        ("descriptor", False),
        ("plugin:x", False),
    ],
)
def test_extraction_looks_into_the_folder(held, name, looks):
    options = resolve_weights(EncoderConfig(name=name), held)
    assert options.weights == (held if looks else None)
