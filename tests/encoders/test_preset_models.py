from __future__ import annotations

import dataclasses
import socket

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import nn
from torchvision import transforms

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.encoders import EncoderConfig, encoder_folder_name, load_encoder
from wsi_ncmi.encoders.architectures import build_architecture
from wsi_ncmi.encoders.network import Headless, NetworkEncoder
from wsi_ncmi.encoders.preset_models import TileNetwork, preprocessing_of
from wsi_ncmi.encoders.presets import presets
from wsi_ncmi.encoders.weights_import import import_weights

# One preset for each way of preparing a tile, with the transform of its card in torchvision's own words.
CARDS = {
    "uni_v1": (224, None, transforms.InterpolationMode.BILINEAR),
    "virchow2": (224, None, transforms.InterpolationMode.BICUBIC),
    "hoptimus0": (224, None, transforms.InterpolationMode.BILINEAR),
    "hibou_b": (224, 224, transforms.InterpolationMode.BICUBIC),
    "kaiko-vits16": (224, 224, transforms.InterpolationMode.BILINEAR),
    "lunit-vits8": (248, 224, transforms.InterpolationMode.BICUBIC),
    "gigapath": (256, 224, transforms.InterpolationMode.BICUBIC),
    "conch_v1": (448, 448, transforms.InterpolationMode.BICUBIC),
    "conch_v15": (448, 448, transforms.InterpolationMode.BILINEAR),
    "musk": (384, 384, transforms.InterpolationMode.BICUBIC),
    "genbio-pathfm": (224, None, transforms.InterpolationMode.BILINEAR),
}


def _options(name, **more):
    return EncoderConfig(**{"name": name, "device": "cpu", "batch_size": 2, **more})


@pytest.fixture
def small(monkeypatch):
    """Presets of one narrow block: the real code, quick."""
    for key in ("uni_v1", "virchow2", "virchow2-cls", "gigapath"):
        preset = presets()[key]
        arguments = {**preset.architecture.arguments, "depth": 1, "embed_dim": 32, "num_heads": 2}
        changed = dataclasses.replace(preset.architecture, arguments=arguments)
        monkeypatch.setitem(presets(), key, dataclasses.replace(preset, architecture=changed))


def _weights(key, folder):
    network = build_architecture(presets()[key].architecture, meta=False)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in network.parameters():
            tensor.normal_(generator=generator, std=0.2)
    save_file(network.state_dict(), folder / f"source_{key}.safetensors")
    return network.eval()


class _Spy(nn.Module):
    """Gives back what it sees of the first tile, so that the whole preparation is in the features."""

    def forward(self, inputs):
        return inputs.flatten(1)


def _tiles(real_data, edge):
    files = sorted((real_data / "tiles").rglob("*.jpeg"))[::40][:3]
    tiles = [Image.open(file).convert("RGB").resize((edge, edge)) for file in files]
    return np.stack([np.asarray(tile) for tile in tiles])


def _differences(key, tiles):
    """In grey levels, of every value of the network's input from the card's."""
    preset = presets()[key]
    resize, crop, interpolation = CARDS[key]
    card = transforms.Compose([
        transforms.Resize(resize, interpolation=interpolation),
        *([transforms.CenterCrop(crop)] if crop else []),
        transforms.ToTensor(),
        transforms.Normalize(preset.recipe.mean, preset.recipe.std),
    ])  # fmt: skip
    expected = torch.stack([card(Image.fromarray(tile)) for tile in tiles])
    model = TileNetwork(_Spy(), preset.recipe.crop_px, preset.pooling)
    ours = NetworkEncoder(Headless(model, (), preprocessing_of(preset)), "none", _options(key)).encode(tiles)
    assert expected.shape[-1] == preset.recipe.crop_px
    std = torch.tensor(preset.recipe.std).view(1, 3, 1, 1)
    return ((torch.from_numpy(ours).reshape(expected.shape) - expected) * std * 255).abs()


@pytest.mark.real_data
@pytest.mark.parametrize("key", sorted(CARDS))
@pytest.mark.parametrize("edge", [256, 512])
def test_real_tiles_are_prepared_as_the_card_says(key, edge, real_data):
    differences = _differences(key, _tiles(real_data, edge))
    # Sizes that no power of two joins are rounded more often.
    odd = (key, edge) in (("conch_v15", 256), ("musk", 512))
    # Equal, but for the last digit of fixed-point weights.
    assert (differences > 0.01).float().mean() < (0.06 if odd else 0.02)
    plain = CARDS[key][2] is transforms.InterpolationMode.BILINEAR and not odd
    assert differences.max() < (1.01 if plain else 2.01)
    # PIL itself is as far from exact arithmetic as that.
    assert (differences > 1.01).float().mean() < (1e-4 if odd else 2e-5)


@pytest.mark.real_data
def test_another_interpolation_would_be_seen(real_data, monkeypatch):
    monkeypatch.setitem(CARDS, "uni_v1", CARDS["virchow2"])
    assert _differences("uni_v1", _tiles(real_data, 256)).max() > 5


@pytest.mark.parametrize("key", sorted(CARDS))
@pytest.mark.parametrize("edge", [224, 300])
def test_any_tile_is_prepared_as_the_card_says(key, edge):
    tiles = np.random.default_rng(1).integers(0, 256, (2, edge, edge, 3), dtype=np.uint8)
    largest = _differences(key, tiles).max()
    # Nothing is interpolated where the tile has the size already; on pure noise, whose overshoot bicubic clips
    # twice, fixed-point arithmetic may differ by two grey levels.
    assert largest < (1e-3 if edge == presets()[key].recipe.resize_px else 2.01)


@pytest.mark.parametrize("key", ["uni_v1", "virchow2", "gigapath"])
def test_an_imported_preset_encodes_as_its_network(small, key, tmp_path):
    network = _weights(key, tmp_path)
    import_weights(tmp_path / f"source_{key}.safetensors", key, tmp_path / "w")
    encoder = load_encoder(_options(key, weights=tmp_path / "w"))
    assert (encoder.info.name, encoder.info.weights_source) == (key, f"{key}.safetensors")
    preset = presets()[key]
    edge = preset.recipe.resize_px
    tiles = np.random.default_rng(2).integers(0, 256, (3, edge, edge, 3), dtype=np.uint8)
    margin = (edge - preset.recipe.crop_px) // 2
    pixels = torch.from_numpy(tiles).permute(0, 3, 1, 2).float() / 255
    pixels = transforms.Normalize(preset.recipe.mean, preset.recipe.std)(pixels)
    with torch.inference_mode():
        tokens = network(pixels[..., margin : edge - margin, margin : edge - margin])
    expected = tokens[:, 0]
    if preset.pooling == "both":
        expected = torch.cat([expected, tokens[:, network.num_prefix_tokens :].mean(1)], 1)
    np.testing.assert_allclose(encoder.encode(tiles), expected.numpy(), rtol=1e-3, atol=1e-4)


def test_variants_read_the_same_file(small, tmp_path):
    _weights("virchow2", tmp_path)
    import_weights(tmp_path / "source_virchow2.safetensors", "virchow2", tmp_path / "w")
    tiles = np.random.default_rng(2).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    both, token = (
        load_encoder(_options(key, weights=tmp_path / "w")) for key in ("virchow2", "virchow2-cls")
    )
    assert np.array_equal(both.encode(tiles)[:, :32], token.encode(tiles))
    assert both.info.weights_sha256 == token.info.weights_sha256
    assert both.info.transform != token.info.transform
    assert encoder_folder_name(both.info.name) != encoder_folder_name(token.info.name)


def test_a_published_file_loads_without_an_import(small, tmp_path):
    _weights("uni_v1", tmp_path)
    direct = load_encoder(_options("uni_v1", weights=tmp_path / "source_uni_v1.safetensors"))
    import_weights(tmp_path / "source_uni_v1.safetensors", "uni_v1", tmp_path / "w")
    assert (
        load_encoder(_options("uni_v1", weights=tmp_path / "w")).info.weights_sha256
        == direct.info.weights_sha256
    )


def test_a_tampered_file_is_refused(small, tmp_path):
    _weights("uni_v1", tmp_path)
    made = import_weights(tmp_path / "source_uni_v1.safetensors", "uni_v1", tmp_path / "w")
    content = bytearray(made.path.read_bytes())
    content[-3] ^= 4
    made.path.write_bytes(content)
    for weights in (tmp_path / "w", made.path):
        with pytest.raises(InputError, match="refused: its SHA-256"):
            load_encoder(_options("uni_v1", weights=weights))


def test_no_network_call_once_the_weights_are_there(small, tmp_path, monkeypatch):
    _weights("uni_v1", tmp_path)

    def refuse(*_args, **_kwargs):
        raise AssertionError("the network was asked")

    for call in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, call, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    import_weights(tmp_path / "source_uni_v1.safetensors", "uni_v1", tmp_path / "w")
    encoder = load_encoder(_options("uni_v1", weights=tmp_path / "w"))
    assert encoder.encode(np.zeros((1, 224, 224, 3), np.uint8)).shape == (1, 32)


def test_a_preset_never_goes_without_its_weights(tmp_path):
    with pytest.raises(
        InputError, match=r"preset uni_v1 needs its weights: set WSI_NCMI_WEIGHTS.*Ask for access at"
    ):
        load_encoder(_options("uni_v1"))
    (tmp_path / "resnet18.pt").touch()
    with pytest.raises(InputError, match=r"no weights for virchow2 .*Ask for access at"):
        load_encoder(_options("virchow2-cls", weights=tmp_path))


@pytest.mark.parametrize("more", [{"input_px": 256}, {"mean": (0.5, 0.5, 0.5)}, {"interpolation": "bicubic"}])
def test_the_preparation_of_a_preset_is_its_own(more):
    with pytest.raises(ValidationError, match="uni_v1 brings its own preprocessing"):
        _options("uni_v1", **more)
    if "input_px" not in more:
        with pytest.raises(ValidationError, match="brings its own preprocessing"):
            _options("torchvision:resnet18", **more)
