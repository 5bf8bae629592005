from __future__ import annotations

import logging
import socket

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from wsi_ncmi.core.errors import InputError, WsiNcmiError
from wsi_ncmi.encoders import EncoderConfig, load_encoder
from wsi_ncmi.encoders.network import Headless, NetworkEncoder, Preprocessing
from wsi_ncmi.encoders.timm_models import headless_timm
from wsi_ncmi.encoders.torchvision_models import headless_torchvision

SMALL = "torchvision:mobilenet_v3_small"


def _options(name=SMALL, **more):
    return EncoderConfig(**{"name": name, "device": "cpu", "batch_size": 4, **more})


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("squeezenet1_1", 512),
        ("mobilenet_v3_small", 1024),
        ("shufflenet_v2_x0_5", 1024),
        ("resnet18", 512),
        ("convnext_tiny", 768),
        ("googlenet", 1024),
        ("densenet121", 1024),
    ],
)
def test_torchvision_heads_come_off(name, width):
    headless = headless_torchvision(name, 64)
    with torch.inference_mode():
        assert headless.model.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, width)


def test_removed_head_gives_what_the_classifier_saw():
    headless = headless_torchvision("mobilenet_v3_small", 64)
    whole = torchvision.models.mobilenet_v3_small(weights=None).eval()
    whole.load_state_dict({**whole.state_dict(), **headless.model.state_dict()})
    seen = []
    whole.classifier[3].register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    pixels = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        whole(pixels)
        torch.testing.assert_close(headless.model.eval()(pixels), seen[0])


@pytest.mark.parametrize(
    ("name", "family", "width"),
    [
        ("torchvision:swin_t", headless_torchvision, 768),
        ("timm:vit_tiny_patch16_224", headless_timm, 192),
        ("timm:resnet18.a1_in1k", headless_timm, 512),
    ],
)
def test_transformers_and_timm(name, family, width, tiles):
    encoder = load_encoder(_options(name, batch_size=2))
    assert encoder.info.embed_dim == width
    assert encoder.encode(tiles[:3]).shape == (3, width)
    assert str(family(name.partition(":")[2]).preprocessing) == encoder.info.transform


def test_whole_models_weights_load_and_their_head_is_left_out(tmp_path, tiles):
    whole = torchvision.models.mobilenet_v3_small(weights=None)
    save_file(whole.state_dict(), tmp_path / "mobilenet_v3_small-abc.safetensors")
    encoder = load_encoder(_options(weights=tmp_path))
    assert encoder.info.weights_source == "mobilenet_v3_small-abc.safetensors"
    assert len(encoder.info.weights_sha256) == 64
    resized = torch.from_numpy(tiles).permute(0, 3, 1, 2)
    expected = whole.eval()
    expected.classifier[3] = nn.Identity()
    transform = torchvision.transforms.v2.Compose(
        [torchvision.transforms.v2.Resize([224, 224], antialias=True), torchvision.transforms.v2.ToDtype(torch.float32, scale=True),
         torchvision.transforms.v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
    )  # fmt: skip
    with torch.inference_mode():
        np.testing.assert_allclose(
            encoder.encode(tiles), expected(transform(resized)).numpy(), rtol=1e-3, atol=1e-4
        )
    with pytest.raises(InputError, match=r"does not fit torchvision:resnet18.*missing.*unexpected"):
        load_encoder(
            _options("torchvision:resnet18", weights=tmp_path / "mobilenet_v3_small-abc.safetensors")
        )


def test_timm_weights_with_a_head_load(tmp_path):
    import timm

    whole = timm.create_model("resnet10t", pretrained=False)
    save_file(whole.state_dict(), tmp_path / "model.safetensors")
    encoder = load_encoder(_options("timm:resnet10t", weights=tmp_path, input_px=64))
    assert encoder.info.weights_source == "model.safetensors"


@pytest.mark.parametrize("name", [SMALL, "timm:vit_tiny_patch16_224"])
def test_a_tiles_numbers_do_not_depend_on_its_batch(name):
    pixels = np.random.default_rng(5).integers(0, 256, (7, 224, 224, 3), dtype=np.uint8)
    encoder = load_encoder(_options(name))
    together = encoder.encode(pixels)
    for rows in ([0], [6], [2, 3, 5], [6, 5, 4, 3, 2, 1, 0]):
        assert np.array_equal(encoder.encode(pixels[rows]), together[rows])


def test_resize_is_that_of_pil(tiles):
    seen = []

    class Spy(nn.Module):
        def forward(self, inputs):
            seen.append(inputs)
            return inputs.mean(dim=(2, 3))

    preprocessing = Preprocessing(48, "bicubic", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    encoder = NetworkEncoder(Headless(Spy(), (), preprocessing), "none", _options())
    assert encoder.info.embed_dim == 3
    encoder.encode(tiles)
    assert all(batch.shape == (4, 3, 48, 48) for batch in seen[1:])  # the first is the probe for the width
    reference = np.stack(
        [np.asarray(Image.fromarray(tile).resize((48, 48), Image.Resampling.BICUBIC)) for tile in tiles]
    )
    given = np.rint(torch.cat(seen[1:]).permute(0, 2, 3, 1).numpy()[:5] * 255)
    assert np.abs(given - reference).max() <= 1


def test_random_weights_are_seeded_loud_and_leave_the_callers_state(caplog):
    torch.manual_seed(11)
    state = torch.random.get_rng_state()
    with caplog.at_level(logging.WARNING):
        first, second = (load_encoder(_options(input_px=64)) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first.info.weights_sha256 == second.info.weights_sha256
    assert first.info.weights_source == "random (seed 0)"
    assert [record.message for record in caplog.records if "RANDOM weights" in record.message] == [
        caplog.records[0].message
    ]
    assert len([record for record in caplog.records if "RANDOM" in record.message]) == 1


def test_half_precision_stays_near(tiles):
    exact = load_encoder(_options(input_px=64)).encode(tiles)
    encoder = load_encoder(_options(input_px=64, precision="bf16"))
    near = encoder.encode(tiles)
    assert encoder.info.precision == "bf16"
    assert near.dtype == np.float32
    assert not np.array_equal(near, exact)
    cosine = (near * exact).sum(1) / np.linalg.norm(near, axis=1) / np.linalg.norm(exact, axis=1)
    assert cosine.min() > 0.99


def test_identity_of_the_arithmetic():
    encoder = load_encoder(_options(input_px=64))
    assert (encoder.info.precision, encoder.info.backend) == ("fp32", "torch-cpu")
    assert (
        encoder.info.transform
        == "resize 64 bilinear antialias; mean 0.485,0.456,0.406; std 0.229,0.224,0.225"
    )


def test_cuda_without_a_device_is_one_sentence(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="--device cpu or auto"):
        load_encoder(_options(device="cuda"))
    assert load_encoder(_options(device="auto", input_px=64)).info.backend == "torch-cpu"


@pytest.mark.parametrize("name", ["torchvision:vit_b_32", "timm:vit_tiny_patch16_224"])
def test_networks_of_one_size_refuse_another(name):
    with pytest.raises(InputError, match="takes 224 px only, not input_px 256"):
        load_encoder(_options(name, input_px=256))


def test_values_that_are_not_finite_are_an_error(tiles):
    class Broken(nn.Module):
        def forward(self, inputs):
            return inputs.mean(dim=(2, 3)) / 0

    encoder = NetworkEncoder(
        Headless(Broken(), (), Preprocessing(64, "bilinear", (0.5,) * 3, (1.0,) * 3)), "none", _options()
    )
    with pytest.raises(WsiNcmiError, match="not finite for 5 of 5 tiles"):
        encoder.encode(tiles)


def test_a_network_that_does_not_pool_is_refused():
    with pytest.raises(InputError, match=r"output of shape \(3, 64, 64\)"):
        NetworkEncoder(
            Headless(nn.Identity(), (), Preprocessing(64, "bilinear", (0.5,) * 3, (1.0,) * 3)),
            "none",
            _options(),
        )


def test_no_network_call(monkeypatch, tmp_path, tiles):
    asked = []

    def refuse(_socket, address):
        asked.append(address)
        raise OSError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    for name in ("timm:resnet10t.c3_in1k", SMALL):
        encoder = load_encoder(_options(name, input_px=64))
        assert encoder.encode(tiles[:1]).shape == (1, encoder.info.embed_dim)
    assert asked == []  # nor tried and caught


@pytest.mark.real_data
def test_linear_probe_with_imagenet_squeezenet(real_data, lung_probe):
    encoder = load_encoder(
        _options("torchvision:squeezenet1_1", weights=real_data / "encoders", batch_size=32)
    )
    assert encoder.info.embed_dim == 512
    assert lung_probe(encoder) > 0.88
