from __future__ import annotations

import dataclasses
import os

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import sha256_file
from wsi_ncmi.encoders import EncoderConfig, load_encoder
from wsi_ncmi.encoders.architectures import build_architecture
from wsi_ncmi.encoders.presets import presets
from wsi_ncmi.encoders.weights_folder import read_manifest
from wsi_ncmi.encoders.weights_import import import_weights, recognised


@pytest.fixture
def small(monkeypatch):
    """Presets whose networks are small: the real code, quick."""
    for key in ("uni_v1", "virchow2", "virchow2-cls"):
        preset = presets()[key]
        arguments = {**preset.architecture.arguments, "depth": 1, "embed_dim": 32, "num_heads": 2}
        changed = dataclasses.replace(
            preset, architecture=dataclasses.replace(preset.architecture, arguments=arguments)
        )
        monkeypatch.setitem(presets(), key, changed)
    return _state


def _state(key):
    generator = torch.Generator().manual_seed(0)
    network = build_architecture(presets()[key].architecture)
    return {
        name: torch.randn(value.shape, generator=generator) for name, value in network.state_dict().items()
    }


def test_a_pickle_becomes_recorded_safetensors(small, tmp_path):
    state = small("uni_v1")
    torch.save({"state_dict": {**state, "head.weight": torch.zeros(2)}}, tmp_path / "pytorch_model.bin")
    folder = tmp_path / "weights"
    made = import_weights(tmp_path / "pytorch_model.bin", "uni_v1", folder)
    assert made.path == folder / "uni_v1.safetensors"
    with safe_open(made.path, "pt") as file:
        assert set(file.keys()) == set(state)
        assert all(torch.equal(file.get_tensor(key), state[key]) for key in state)
    (entry,) = read_manifest(folder)
    assert entry == made.entry
    assert entry.sha256 == sha256_file(made.path)
    assert entry.source_sha256 == sha256_file(tmp_path / "pytorch_model.bin")
    assert entry.source == "file:pytorch_model.bin"
    assert "non-commercial" in entry.licence
    assert entry.parameters == sum(value.numel() for value in state.values())
    assert str(tmp_path) not in (folder / "manifest.json").read_text()
    plain = tmp_path / "plain"
    plain.touch()
    assert made.path.stat().st_mode == plain.stat().st_mode  # whoever may read other files may read this one
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "uni_v1.safetensors"]


def test_number_types_stay(small, tmp_path):
    save_file({key: value.half() for key, value in small("uni_v1").items()}, tmp_path / "a.safetensors")
    made = import_weights(tmp_path / "a.safetensors", "uni_v1", tmp_path / "weights")
    with safe_open(made.path, "pt") as file:
        assert file.get_tensor("pos_embed").dtype == torch.float16


def test_tensors_that_share_memory_are_parted(small, tmp_path):
    state = small("uni_v1")
    joined = torch.randn(2, 32)
    state["norm.weight"], state["norm.bias"] = joined[0], joined[1]
    torch.save(state, tmp_path / "a.pt")
    made = import_weights(tmp_path / "a.pt", "uni_v1", tmp_path / "weights")
    with safe_open(made.path, "pt") as file:
        assert torch.equal(file.get_tensor("norm.bias"), joined[1])


def test_what_does_not_fit_is_refused_and_leaves_nothing(small, tmp_path):
    state = small("uni_v1")
    save_file({key: value for key, value in state.items() if key != "cls_token"}, tmp_path / "a.safetensors")
    save_file({**state, "extra": torch.zeros(1)}, tmp_path / "b.safetensors")
    save_file({**state, "cls_token": torch.zeros(1, 1, 33)}, tmp_path / "c.safetensors")
    folder = tmp_path / "weights"
    for name, fault in (("a", "missing"), ("b", "unexpected"), ("c", "another shape")):
        with pytest.raises(InputError, match=f"does not fit uni_v1.*1 (of )?{fault}"):
            import_weights(tmp_path / f"{name}.safetensors", "uni_v1", folder)
    assert not folder.exists()


class _Evil:
    def __reduce__(self):
        return os.mkdir, (os.environ["WSI_NCMI_EVIL"],)


def test_a_pickle_with_code_is_refused_and_not_run(small, tmp_path, monkeypatch):
    monkeypatch.setenv("WSI_NCMI_EVIL", str(tmp_path / "planted"))
    torch.save({"cls_token": _Evil()}, tmp_path / "evil.bin")
    with pytest.raises(InputError, match="could run code"):
        import_weights(tmp_path / "evil.bin", "uni_v1", tmp_path / "weights")
    assert not (tmp_path / "planted").exists()


def test_other_weights_are_not_replaced_unasked(small, tmp_path):
    state = small("uni_v1")
    save_file(state, tmp_path / "a.safetensors")
    save_file({key: value + 1 for key, value in state.items()}, tmp_path / "b.safetensors")
    folder = tmp_path / "weights"
    digests = {import_weights(tmp_path / "a.safetensors", "uni_v1", folder).entry.sha256 for _ in range(8)}
    assert len(digests) == 1  # the same again is no conflict, and the same bytes
    with pytest.raises(InputError, match=r"holds other weights for uni_v1 .*--overwrite"):
        import_weights(tmp_path / "b.safetensors", "uni_v1", folder)
    made = import_weights(tmp_path / "b.safetensors", "uni_v1", folder, overwrite=True)
    assert read_manifest(folder) == (made.entry,)


def test_variants_import_into_the_weights_they_share(small, tmp_path):
    save_file(small("virchow2"), tmp_path / "a.safetensors")
    assert (
        import_weights(tmp_path / "a.safetensors", "virchow2-cls", tmp_path / "w").entry.encoder == "virchow2"
    )


def test_networks_of_timm_and_torchvision_can_be_kept_too(tmp_path):
    import torchvision

    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), tmp_path / "s.pth")
    made = import_weights(tmp_path / "s.pth", "torchvision:squeezenet1_1", tmp_path / "w")
    assert made.path.name == "torchvision_squeezenet1_1.safetensors"
    assert made.entry.licence == "unknown"
    with pytest.raises(InputError, match="did you mean torchvision:squeezenet1_1"):
        import_weights(tmp_path / "s.pth", "torchvision:squeezenet11", tmp_path / "w")
    with pytest.raises(InputError, match="can be imported for a preset"):
        import_weights(tmp_path / "s.pth", "torchscript:s.pth", tmp_path / "w")
    with pytest.raises(InputError, match="no preset"):
        import_weights(tmp_path / "s.pth", "resnet", tmp_path / "w")
    with pytest.raises(InputError, match="no weights file"):
        import_weights(tmp_path / "absent.pth", "resnet50", tmp_path / "w")


@pytest.mark.real_data
def test_real_weights_are_the_same_after_an_import(real_data, tmp_path):
    source = real_data / "encoders" / "squeezenet1_1_imagenet.safetensors"
    made = import_weights(source, "torchvision:squeezenet1_1", tmp_path)
    options = EncoderConfig(name="torchvision:squeezenet1_1", weights=source, device="cpu", batch_size=2)
    direct, kept = load_encoder(options), load_encoder(dataclasses.replace(options, weights=tmp_path))
    assert (kept.info.weights_source, kept.info.weights_sha256) == (
        made.path.name,
        direct.info.weights_sha256,
    )
    tiles = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    assert np.array_equal(kept.encode(tiles), direct.encode(tiles))


def test_published_files_are_recognised(monkeypatch, small, tmp_path):
    preset = presets()["ctranspath"]
    assert recognised(preset, preset.sha256[0])
    assert not recognised(preset, "0" * 64)
    save_file(small("uni_v1"), tmp_path / "a.safetensors")
    digest = sha256_file(tmp_path / "a.safetensors")
    for known, said in ((digest[:8], "is the published one"), ("0" * 8, "none of those whose SHA-256")):
        monkeypatch.setitem(presets(), "uni_v1", dataclasses.replace(presets()["uni_v1"], sha256=(known,)))
        assert said in import_weights(tmp_path / "a.safetensors", "uni_v1", tmp_path / "w").notes[1]
