"""Networks of timm with a stem for small images."""

from __future__ import annotations

import pytest
import torch

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.vision import NetworkConfig
from wsi_ncmi.vision.classifier import build_network, feature_width

# Parameters of the published CIFAR networks with 100 classes, less those of the head (He et al.'s blocks).
PUBLISHED = {"resnet18": 11_220_132, "resnet34": 21_328_292, "resnet50": 23_705_252}


@pytest.mark.parametrize("name", PUBLISHED)
def test_resnets_are_those_of_cifar(name):
    network = build_network(NetworkConfig(name=name))
    width = {"resnet18": 512, "resnet34": 512, "resnet50": 2048}[name]
    assert sum(p.numel() for p in network.parameters()) == PUBLISHED[name] - 100 * width - 100
    sizes = []
    network.layer1.register_forward_hook(lambda module, given, result: sizes.append(tuple(result.shape[-2:])))
    assert feature_width(network, 32) == width
    assert sizes == [(32, 32)]


@pytest.mark.parametrize(
    ("name", "halvings"),
    [
        ("densenet121", 3),
        ("regnetx_002", 4),
        ("efficientnet_b0", 4),
        ("seresnet50", 3),
        ("resnet10t", 3),
        ("mobilenetv3_small_050", 4),
    ],
)
def test_other_stems_lose_stride_and_pooling(name, halvings):
    network = build_network(NetworkConfig(name=name))
    side = network.eval().forward_features(torch.zeros(1, 3, 32, 32)).shape[-1]
    assert side == 32 >> halvings


def test_the_stem_may_keep_a_stride():
    network = build_network(NetworkConfig(name="resnet18", stem_stride=2))
    assert network.forward_features(torch.zeros(2, 3, 32, 32)).shape[-1] == 2


def test_an_original_stem_is_left_alone():
    network = build_network(NetworkConfig(name="resnet18", stem="original"))
    assert network.conv1.kernel_size == (7, 7)
    assert isinstance(network.maxpool, torch.nn.MaxPool2d)


def test_a_vision_transformer_takes_its_own_arguments():
    arguments = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}
    network = build_network(NetworkConfig(name="vit_tiny_patch16_224", stem="original", arguments=arguments))
    assert feature_width(network, 32) == 24
    with pytest.raises(InputError, match=r"doesn't take images of 48 × 48 .*network\.arguments"):
        feature_width(network, 48)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "resnet81"}, "timm has no model named 'resnet81' .* did you mean 'resnet"),
        ({"name": "vit_tiny_patch16_224"}, "no convolutional stem that can be made small"),
        ({"name": "convnext_atto"}, "no convolutional stem that can be made small"),
        ({"arguments": {"colour": "blue"}}, "timm can't build 'resnet18' with network.arguments"),
    ],
)
def test_what_can_not_be_built_is_said(options, message):
    with pytest.raises(InputError, match=message):
        build_network(NetworkConfig(**options))
